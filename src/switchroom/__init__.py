"""Switchroom: a self-hosted realtime voice call centre."""

__version__ = "0.1.0"
