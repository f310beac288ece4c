//! In which slot of a cluster a key lies.

use crc::{CRC_16_XMODEM, Crc};

use crate::model::ProductId;

/// How many there are.
pub(super) const SLOTS: u16 = 16_384;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);

/// A slot.
pub(in crate::stock::redis) type Slot = u16;

/// The slot of all keys of a product, which have its id as their hash tag.
pub(in crate::stock::redis) fn slot_of_product(product: ProductId) -> Slot {
    slot_of_tag(itoa::Buffer::new().format(product.get()))
}

/// The slot of a key.
pub(in crate::stock::redis) fn slot_of_key(key: &str) -> Slot {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    slot_of_tag(tag.filter(|tag| !tag.is_empty()).unwrap_or(key))
}

fn slot_of_tag(tag: &str) -> Slot {
    CRC.checksum(tag.as_bytes()) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slots are those that `CLUSTER KEYSLOT` of Redis 7 answers.
    #[test]
    fn a_key_lies_where_redis_says() {
        for (key, slot) in
            [("foo", 12_182), ("seckill:{7}:gate", 1_716), ("{7}", 1_716), ("a{}b", 13_694), ("{a}{b}", 15_495)]
        {
            assert_eq!(slot_of_key(key), slot, "{key}");
        }
        assert_eq!(slot_of_product(7.try_into().unwrap()), 1_716);
    }
}
