"""Does the same in a Lambda function that has Powertools; its cache lasts for 5 minutes."""

import os

import httpx
from aws_lambda_powertools.utilities.parameters import get_secret

secret_id = os.environ.get("TOKEN_SECRET_ID", "smartcar-token/access-token")
url = os.environ.get("SMARTCAR_API_URL", "https://vehicle.api.smartcar.com/v3")

token = get_secret(secret_id, transform="json", max_age=300)
headers = {"Authorization": f"{token['token_type']} {token['access_token']}"}
response = httpx.get(f"{url}/connections", headers=headers)
response.raise_for_status()
print(response.json())
