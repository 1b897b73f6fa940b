"""Pure pieces that agents share: mathematics, networks, buffers. Never a composition of losses."""
