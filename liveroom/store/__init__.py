"""Bytes at rest: Redis or Valkey for what is hot, SQL for what must never be lost."""
