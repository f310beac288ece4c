//! Settings that are one word of a few.

/// Reads a type from the words for its variants; any other word is an error that names them.
macro_rules! words {
    ($type:ty { $($word:literal => $variant:path),+ }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
                let word = String::deserialize(value)?;
                match word.as_str() {
                    $($word => Ok($variant),)+
                    _ => {
                        let known = [$($word),+].join(" or ");
                        Err(serde::de::Error::custom(format!("must be {known}, not `{word}`")))
                    }
                }
            }
        }
    };
}
