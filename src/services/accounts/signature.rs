//! Signatures of tokens: those by key pairs are checked by `ring`, which is here for TLS anyway. Those by a secret are checked
//! for each purchase, which takes `hmac` a quarter less time than `ring`.
//!
//! A key is for one algorithm only, whatever a token says of itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use sha2::Sha256;

/// RSA keys that are neither weak nor slow: 2048 to 8192 bits. `ring` takes no others either.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A secret that signs tokens (HS256), and checks them.
pub(super) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Prepares a secret: it is hashed once, not for each token.
    pub(super) fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// The signature of a message.
    pub(super) fn sign(&self, message: &[u8]) -> impl AsRef<[u8]> + use<> {
        self.0.clone().chain_update(message).finalize().into_bytes()
    }

    /// Whether this is the signature of a message. Takes the same time wherever it differs.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.clone().chain_update(message).verify_slice(signature).is_ok()
    }
}

/// A key that checks signatures by one algorithm.
pub(super) enum VerifyingKey {
    /// HS256.
    Secret(SigningKey),
    /// RS256.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// ES256: r and s, 32 bytes each.
    P256(UnparsedPublicKey<Vec<u8>>),
    /// EdDSA.
    Ed25519(UnparsedPublicKey<Vec<u8>>),
}

impl VerifyingKey {
    /// The key that a JWK describes. `None`: it is of a kind that we do not use, too weak, or cannot be read. A secret is
    /// none in a set that others can read.
    pub(super) fn from_jwk(parameters: &AlgorithmParameters) -> Option<Self> {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        match parameters {
            AlgorithmParameters::RSA(rsa) => {
                let (n, e) = (without_leading_zeros(bytes(&rsa.n)?), without_leading_zeros(bytes(&rsa.e)?));
                RSA_BYTES.contains(&n.len()).then_some(Self::Rsa(RsaPublicKeyComponents { n, e }))
            }
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                // Uncompressed, as SEC 1 writes a point.
                let point = [vec![4], bytes(&ec.x)?, bytes(&ec.y)?].concat();
                Some(Self::P256(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)))
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                Some(Self::Ed25519(UnparsedPublicKey::new(&ED25519, bytes(&pair.x)?)))
            }
            _ => None,
        }
    }

    /// The one algorithm that it is for.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::HS256,
            Self::Rsa(_) => Algorithm::RS256,
            Self::P256(_) => Algorithm::ES256,
            Self::Ed25519(_) => Algorithm::EdDSA,
        }
    }

    /// Whether this is the signature of a message.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(key) => key.verify(message, signature),
            Self::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok(),
            Self::P256(key) | Self::Ed25519(key) => key.verify(message, signature).is_ok(),
        }
    }
}

/// RFC 7518 asks for numbers without them, but some libraries write a zero in front of a number that begins with a set bit.
fn without_leading_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use jsonwebtoken::jwk::{Jwk, RSAKeyParameters};

    use super::*;

    /// What signs is another library than ours, and what a JWK Set says of it.
    fn pairs() -> [(EncodingKey, Jwk, Algorithm); 3] {
        let rsa = EncodingKey::from_rsa_der(include_bytes!("../../../tests/api/keys/rsa.der"));
        let ec = EncodingKey::from_ec_der(include_bytes!("../../../tests/api/keys/ec.der"));
        let ed = EncodingKey::from_ed_der(include_bytes!("../../../tests/api/keys/ed.der"));
        [(rsa, Algorithm::RS256), (ec, Algorithm::ES256), (ed, Algorithm::EdDSA)].map(|(key, algorithm)| {
            let jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
            (key, jwk, algorithm)
        })
    }

    fn sign(message: &[u8], key: &EncodingKey, algorithm: Algorithm) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(jsonwebtoken::crypto::sign(message, key, algorithm).unwrap()).unwrap()
    }

    #[test]
    fn a_key_checks_what_another_library_signed_and_nothing_else() {
        for (key, jwk, algorithm) in pairs() {
            let ours = VerifyingKey::from_jwk(&jwk.algorithm).unwrap();
            assert_eq!(ours.algorithm(), algorithm);
            let signature = sign(b"message", &key, algorithm);
            assert!(ours.verify(b"message", &signature), "{algorithm:?}");
            assert!(!ours.verify(b"massage", &signature), "{algorithm:?}");
            for place in 0..signature.len() {
                let mut changed = signature.clone();
                changed[place] ^= 1;
                assert!(!ours.verify(b"message", &changed), "{algorithm:?}, changed at {place}");
            }
            for length in 0..signature.len() {
                assert!(!ours.verify(b"message", &signature[..length]), "{algorithm:?}, cut to {length}");
            }
            assert!(!ours.verify(b"message", &[signature, vec![0]].concat()), "{algorithm:?}, longer");
        }
    }

    #[test]
    fn a_secret_signs_as_another_library_does() {
        for length in [0, 1, 32, 63, 64, 65, 200] {
            let secret = vec![b's'; length];
            let theirs = sign(b"message", &EncodingKey::from_secret(&secret), Algorithm::HS256);
            let ours = SigningKey::new(&secret);
            assert_eq!(ours.sign(b"message").as_ref(), theirs, "a secret of {length} bytes");
            assert!(ours.verify(b"message", &theirs) && !ours.verify(b"massage", &theirs));
            assert!(!ours.verify(b"message", &theirs[..31]) && !ours.verify(b"message", b""));
        }
    }

    #[test]
    fn an_rsa_key_may_be_written_with_a_zero_in_front_but_must_not_be_weak() {
        let [(key, jwk, algorithm), ..] = pairs();
        let AlgorithmParameters::RSA(rsa) = &jwk.algorithm else { panic!("{jwk:?}") };
        let n = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap();
        let with = |n: Vec<u8>| {
            VerifyingKey::from_jwk(&AlgorithmParameters::RSA(RSAKeyParameters {
                n: URL_SAFE_NO_PAD.encode(n),
                ..rsa.clone()
            }))
        };
        let zero_in_front = with([vec![0], n.clone()].concat()).unwrap();
        assert!(zero_in_front.verify(b"message", &sign(b"message", &key, algorithm)));
        assert!(with(n[..255].to_vec()).is_none());
        assert!(with([vec![0; 128], n[..128].to_vec()].concat()).is_none(), "1024 bits that look like 2048");
        assert!(with([n.clone(), vec![1; 1024]].concat()).is_none());
    }
}
