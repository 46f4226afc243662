"""The embedded mesh: Postgres, Valkey, a model, seven services and Envoy on one machine, under one supervisor."""
