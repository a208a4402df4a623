"""How messages leave Redis: popped and recorded in one step, held on leases (ADR 0018, 0019)."""
