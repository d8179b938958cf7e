"""How much adapter, how fast: LoRAPlan and what it is worked out from."""
