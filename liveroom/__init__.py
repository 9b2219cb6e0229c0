"""liveroom: a real-time live-commerce server."""

__version__ = "0.1.0"
