//! What goes wrong while the rings are in two stores: nobody is missed by anybody for it, or a refusal names it.

mod gossip;
mod people;
mod stores;

pub(super) use gossip::{a_clock_is_wrong, the_label_is_split, there_are_no_peers};
pub(super) use people::{
    an_ingester_is_killed_mid_switch, one_process_reloads_late, one_process_restarts_with_the_old_file,
    two_operators_at_once,
};
pub(super) use stores::{the_primary_fails, the_ring_is_too_large, the_secondary_fails};
