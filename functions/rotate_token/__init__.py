"""Keeps a valid Smartcar application access token in AWS Secrets Manager."""

__version__ = "0.9.0"
