//! The roles of this workspace, as modules of a process.

use ringkit_server::Role;

/// Every role that a ringkit process can run.
pub const ALL: &[Role] = &[ringkit_distributor::ROLE, ringkit_ingester::ROLE, ringkit_store_gateway::ROLE];
