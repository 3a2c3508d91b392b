//! [`Consul`]: values in HashiCorp Consul's key-value store.
