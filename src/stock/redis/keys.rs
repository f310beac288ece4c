//! Names of the keys and fields: all keys begin with the deployment's prefix, so that two deployments can share a server, and those of a
//! product carry its hash tag, so that one script may touch them all.

use std::fmt::Display;

use crate::model::ProductId;

/// Field of `buyers` and member of `flight` that is there as long as the key is, so that the loss of one key alone is noticed.
/// In `buyers` it holds the epoch. No user has the id 0.
pub(super) const SENTINEL: &str = "0";

/// What describes a gate, in the order that `replies` reads. `home` is the id of the server. Older programs do not
/// write the last two.
pub(super) const GATE_FIELDS: [&str; 11] =
    ["epoch", "home", "open", "ver", "stock", "starts", "ends", "paused", "seq", "terms", "extra"];

/// Stands in the place of a product's id in keys of nobody: only a number is one.
const PROBE: &str = "probe";
/// Names of such keys that are tried until one lies on a certain shard.
const PROBES: u32 = 10_000;

/// See the module.
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// `prefix` as `redis.key_prefix` says; it holds no braces, which would make another hash tag.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Which deployment's gates these are.
    pub(super) fn deployment(&self) -> String {
        format!("{}deployment", self.prefix)
    }

    /// Of which products something is in flight.
    pub(super) fn in_flight_index(&self) -> String {
        format!("{}flights", self.prefix)
    }

    /// What describes the gate.
    pub(super) fn gate(&self, product: ProductId) -> String {
        format!("{}{{{product}}}:gate", self.prefix)
    }

    /// Who holds units.
    pub(super) fn buyers(&self, product: ProductId) -> String {
        format!("{}{{{product}}}:buyers", self.prefix)
    }

    /// What is reserved and not known to be written.
    pub(super) fn flight(&self, product: ProductId) -> String {
        format!("{}{{{product}}}:flight", self.prefix)
    }

    /// The keys that most scripts take: gate, buyers, flight.
    pub(super) fn of_sale(&self, product: ProductId) -> [String; 3] {
        [self.gate(product), self.buyers(product), self.flight(product)]
    }

    /// How many units buyers of each address have taken.
    pub(super) fn addresses(&self, product: ProductId) -> String {
        format!("{}{{{product}}}:addresses", self.prefix)
    }

    /// The keys of [`Self::of_sale`], and [`Self::addresses`].
    pub(super) fn of_sale_with_addresses(&self, product: ProductId) -> [String; 4] {
        let [gate, buyers, flight] = self.of_sale(product);
        [gate, buyers, flight, self.addresses(product)]
    }

    /// A user's id behind it names the key of that user's last try.
    pub(super) fn rate_prefix(&self, product: ProductId) -> String {
        format!("{}{{{product}}}:rate:", self.prefix)
    }

    /// What may stand in the place of a product's id in keys of nobody. Each lies on one shard.
    pub(super) fn probe_tags() -> impl Iterator<Item = String> {
        std::iter::once(PROBE.to_owned()).chain((1..PROBES).map(|number| format!("{PROBE}-{number}")))
    }

    /// Keys as a product has them, which belong to none: gate, buyers, flight, staging; and the prefix of the rate keys. `tag` is one
    /// of [`Keys::probe_tags`].
    pub(super) fn probe(&self, tag: &str) -> ([String; 4], String) {
        let key = |end| format!("{}{{{tag}}}:{end}", self.prefix);
        ([key("gate"), key("buyers"), key("flight"), key("load:0")], key("rate:"))
    }

    /// Buyers that are loaded beside a closed gate.
    pub(super) fn staging(&self, product: ProductId, token: &impl Display) -> String {
        format!("{}{{{product}}}:load:{token}", self.prefix)
    }
}
