"""Lists the connections of an application with the published token."""

import os

import httpx
from smartcar_token_auth import SmartcarTokenAuth

auth = SmartcarTokenAuth(os.environ.get("TOKEN_SECRET_ID", "smartcar-token/access-token"))
url = os.environ.get("SMARTCAR_API_URL", "https://vehicle.api.smartcar.com/v3")

with httpx.Client(base_url=url, auth=auth) as smartcar:
    response = smartcar.get("/connections")
    response.raise_for_status()
    print(response.json())
