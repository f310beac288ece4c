//! A Redis Cluster: each product's gate lies in one slot, and each slot on one master at a time.
//!
//! Not the library's cluster client, which follows a redirect within a step: behind it is another server, which must be asked first
//! who it is. Here a step that is sent elsewhere fails, and the next one goes to where the slot is by then.

mod nodes;
mod slot_map;
mod slots;

pub(super) use self::slot_map::Cluster;
pub(super) use self::slots::{slot_of_key, slot_of_product};
