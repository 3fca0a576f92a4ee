"""A Lambda function that reads the token with Powertools, which caches it for 5 minutes."""

import json
import os
import urllib.request

from aws_lambda_powertools.utilities.parameters import get_secret


def lambda_handler(_event: object, _context: object) -> object:
    """Return the connections of the application."""
    token = get_secret(os.environ["TOKEN_SECRET_ID"], transform="json", max_age=300)
    authorization = f"{token['token_type']} {token['access_token']}"
    request = urllib.request.Request(os.environ["SMARTCAR_API_URL"] + "/connections")
    # A plain header would also be sent to a host that a redirect names.
    request.add_unredirected_header("Authorization", authorization)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)
