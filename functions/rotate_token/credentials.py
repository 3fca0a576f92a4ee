"""OAuth 2.0 client credentials."""

from dataclasses import dataclass, field
from typing import Literal, Self

from rotate_token.json_object import parse_json_object

StagingLabel = Literal["AWSCURRENT", "AWSPREVIOUS"]


@dataclass(frozen=True)
class ClientCredentials:
    """
    A client identifier and its secret (RFC 6749 section 2.3.1); the secret is hidden from the repr.

    `version_id` and `staging_label` are those of the version of the credentials secret that holds
    them.

    Raises:
        ValueError: An attribute is unusable; the message names it and does not show its value.
    """

    client_id: str
    client_secret: str = field(repr=False)
    version_id: str = field(compare=False)
    staging_label: StagingLabel = field(compare=False)

    def __post_init__(self) -> None:
        for key in ("client_id", "client_secret"):
            value = getattr(self, key)
            if not isinstance(value, str) or not value:
                raise ValueError(f"{key} is missing, empty or not a string")
            if value != value.strip() or not (value.isascii() and value.isprintable()):
                raise ValueError(
                    f"{key} has leading or trailing whitespace, or characters that are not "
                    "printable ASCII"
                )

    @classmethod
    def from_json(cls, document: str, version_id: str, staging_label: StagingLabel) -> Self:
        """Read ``{"client_id": "…", "client_secret": "…"}``; other keys are ignored."""
        fields = parse_json_object(document)
        return cls(
            fields.get("client_id", ""), fields.get("client_secret", ""), version_id, staging_label
        )
