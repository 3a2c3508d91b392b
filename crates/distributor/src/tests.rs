//! The whole role over real connections: HTTP requests in, ingesters that behave as told behind it.

mod bad_input;
mod fake;
mod harness;
mod reads;
mod role;
mod shards;
mod writes;
