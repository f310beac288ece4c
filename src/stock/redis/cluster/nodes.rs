//! What `CLUSTER NODES` says: a line for each node that one of them knows.

use std::collections::BTreeSet;

use super::super::address::Address;
use super::slots::SLOTS;

/// What one node knows of the others.
pub(super) struct NodesReply {
    /// Its own id.
    pub(super) own_id: String,
    pub(super) masters: Vec<MasterLine>,
    /// All nodes, replicas as well.
    pub(super) addresses: BTreeSet<Address>,
    /// Ids of those that are not known to have failed. Only most masters together know that of a node.
    pub(super) alive: BTreeSet<String>,
}

/// A master that is not known to have failed.
pub(super) struct MasterLine {
    pub(super) address: Address,
    /// The greater, the newer is what is said of its slots.
    pub(super) epoch: u64,
    /// The first and the last of each range.
    pub(super) slots: Vec<(u16, u16)>,
}

impl NodesReply {
    /// Reads what the node at `asked` says. `by_name`: nodes are called by their host names, if they have some, for that is what
    /// certificates are made out for.
    pub(super) fn read(text: &str, asked: &Address, by_name: bool) -> Option<Self> {
        let mut reply =
            Self { own_id: String::new(), masters: Vec::new(), addresses: BTreeSet::new(), alive: BTreeSet::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            // Id, address, flags, master, ping, pong, epoch, link, then its slots.
            let fields: Vec<&str> = line.split(' ').collect();
            let [id, place, flags, _, _, _, epoch, _, slots @ ..] = fields.as_slice() else { return None };
            let has = |flag: &str| flags.split(',').any(|its| its == flag);
            if has("myself") {
                reply.own_id = (*id).to_owned();
            }
            // Nobody knows yet, or any more, where such a node is.
            if has("noaddr") || has("handshake") {
                continue;
            }
            let Some(address) = address(place, asked, by_name) else { continue };
            reply.addresses.insert(address.clone());
            if has("fail") {
                continue;
            }
            reply.alive.insert((*id).to_owned());
            if has("master") {
                // What is in brackets moves from one node to another: until it has, it is where it was.
                let slots = slots.iter().filter(|slots| !slots.starts_with('['));
                let slots = slots.map(|slots| range(slots)).collect::<Option<_>>()?;
                reply.masters.push(MasterLine { address, epoch: epoch.parse().ok()?, slots });
            }
        }
        Some(reply)
    }
}

/// `IP:PORT@BUS-PORT[,HOST-NAME[,...]]`. A node that has not been told its own address has none.
fn address(place: &str, asked: &Address, by_name: bool) -> Option<Address> {
    let mut parts = place.split(',');
    let (address, _) = parts.next()?.split_once('@')?;
    let name = parts.next().filter(|name| by_name && !name.is_empty());
    let (ip, port) = address.rsplit_once(':')?;
    let host = name.unwrap_or(if ip.is_empty() { &asked.host } else { ip });
    Some(Address { host: host.to_owned(), port: port.parse().ok()? })
}

fn range(slots: &str) -> Option<(u16, u16)> {
    let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = "\
07c3 127.0.0.1:30004@31004,host4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,host2,shard-id=6 master - 0 1426238316232 2 connected 5461-10922
292f 127.0.0.1:30003@31003,host3 master,fail - 0 1426238318243 3 connected 10923-16383
6ec2 127.0.0.1:30005@31005 slave,fail? 67ed 0 1426238316232 5 connected
824f :0@0 master,noaddr - 0 1426238317741 6 disconnected
e7d1 :30001@31001,host1 myself,master - 0 0 1 connected 0-5459 5460 [93-<-292f]
";

    #[test]
    fn masters_that_run_are_read_with_their_slots() {
        let asked = Address::parse("10.0.0.9:30001").unwrap();
        for (by_name, first, second) in
            [(false, "127.0.0.1:30002", "10.0.0.9:30001"), (true, "host2:30002", "host1:30001")]
        {
            let reply = NodesReply::read(REPLY, &asked, by_name).unwrap();
            let masters: Vec<_> = reply.masters.iter().map(|master| master.address.to_string()).collect();
            assert_eq!((masters, reply.own_id.as_str()), (vec![first.to_owned(), second.to_owned()], "e7d1"));
            assert_eq!(reply.masters[0].slots, [(5461, 10_922)]);
            assert_eq!(reply.masters[1].slots, [(0, 5459), (5460, 5460)]);
            assert_eq!(reply.masters.iter().map(|master| master.epoch).collect::<Vec<_>>(), [2, 1]);
            assert_eq!((reply.addresses.len(), reply.alive.len()), (5, 4), "all that have an address; one has failed");
        }
    }

    #[test]
    fn nonsense_is_no_answer() {
        let asked = Address::parse("10.0.0.9:30001").unwrap();
        for nonsense in
            ["what", "e7d1 h:1@2 master - 0 0 x connected 0-1", "e7d1 h:1@2 master - 0 0 1 connected 5-99999"]
        {
            assert!(NodesReply::read(nonsense, &asked, false).is_none(), "{nonsense}");
        }
    }
}
