//! Many ids in few bytes: those of orders that were drawn one after the other have much in common.
//!
//! Ids are sorted. Of each follow: by how much its upper half is greater than that of the one before, and its lower half, without the
//! two bytes that it begins with if those are the same. Seven to nine bytes an order of one sale instead of sixteen.

use uuid::Uuid;

/// Bytes of a lower half, and those at its beginning that may be left out.
const LOWER: usize = 8;
const TOP: usize = 2;

/// Packs ids, whatever their order.
pub(super) fn pack(ids: impl IntoIterator<Item = Uuid>) -> Vec<u8> {
    let mut ids: Vec<u128> = ids.into_iter().map(|id| id.as_u128()).collect();
    ids.sort_unstable();
    let mut bytes = Vec::with_capacity(ids.len() * LOWER + LOWER);
    let (mut upper, mut top) = (0, [0; TOP]);
    for id in ids {
        let (next, lower) = ((id >> 64) as u64, (id as u64).to_be_bytes());
        let is_same = lower[..TOP] == top;
        push_number(&mut bytes, u128::from(next - upper) << 1 | u128::from(is_same));
        bytes.extend_from_slice(if is_same { &lower[TOP..] } else { &lower });
        (upper, top) = (next, [lower[0], lower[1]]);
    }
    bytes
}

/// What was packed, in ascending order, as far as it can be read.
pub(super) fn unpack(mut bytes: &[u8]) -> Vec<Uuid> {
    let mut ids = Vec::with_capacity(bytes.len() / LOWER + 1);
    let (mut upper, mut top) = (0_u64, [0; TOP]);
    while let Some(number) = take_number(&mut bytes) {
        let left_out = if number & 1 == 1 { TOP } else { 0 };
        let Some((given, rest)) = bytes.split_at_checked(LOWER - left_out) else { break };
        let mut lower = [0; LOWER];
        lower[..TOP].copy_from_slice(&top);
        lower[left_out..].copy_from_slice(given);
        upper = upper.wrapping_add((number >> 1) as u64);
        (bytes, top) = (rest, [lower[0], lower[1]]);
        ids.push(Uuid::from_u128(u128::from(upper) << 64 | u128::from(u64::from_be_bytes(lower))));
    }
    ids
}

/// Seven bits a byte, the lowest first; the highest bit says that there are more.
fn push_number(bytes: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u128> {
    let mut number = 0_u128;
    for shift in (0..).step_by(7).take_while(|shift| *shift < 70) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OrderId, ProductId};

    fn round_trip(ids: &[Uuid]) -> usize {
        let packed = pack(ids.iter().copied());
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        assert_eq!(unpack(&packed), sorted);
        packed.len()
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        assert_eq!(round_trip(&[]), 0);
        let ends =
            [Uuid::nil(), Uuid::max(), Uuid::from_u128(1), Uuid::from_u128(1 << 64), Uuid::from_u128(u128::MAX - 1)];
        round_trip(&ends);
        for id in ends {
            round_trip(&[id]);
        }
        round_trip(&(0..1_000).map(|_| Uuid::new_v4()).collect::<Vec<_>>());
        round_trip(&(0..1_000).map(|_| Uuid::now_v7()).collect::<Vec<_>>());
    }

    #[test]
    fn orders_of_a_sale_take_less_than_half() {
        let product = |id| ProductId::try_from(id).unwrap();
        let orders: Vec<Uuid> = (0..8_000).map(|_| OrderId::draw(product(7)).into()).collect();
        assert!(round_trip(&orders) < 8_000 * 8);
        let many: Vec<Uuid> =
            (0..8_000).map(|number| OrderId::draw(product(1 + number % 9 * 100_000)).into()).collect();
        assert!(round_trip(&many) < 8_000 * 10);
    }

    #[test]
    fn what_was_cut_or_spoiled_yields_what_can_be_read_and_ends() {
        let packed = pack((0..10).map(|_| Uuid::now_v7()));
        for end in 0..packed.len() {
            assert!(unpack(&packed[..end]).len() < 10);
        }
        assert!(unpack(&[0xff; 64]).is_empty());
        assert!(unpack(&[0x01; 64]).len() < 64);
    }
}
