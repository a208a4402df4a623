"""Redis as the broker: messages are popped and recorded in one step, on leases (ADR 0018, 0019)."""
