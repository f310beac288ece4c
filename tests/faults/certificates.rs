//! A certification authority for one test, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const DAY: Duration = Duration::from_secs(86_400);

/// See the module. Its files are gone when it is dropped.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// What a server is given.
#[derive(Clone)]
pub struct ServerCertificate {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("seckill-ca-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A certificate for this machine's address, which is none for its name.
    pub fn sign(&self) -> ServerCertificate {
        let signed = ServerCertificate {
            ca: self.file(),
            certificate: self.folder.join("server.pem"),
            key: self.folder.join("server.key"),
        };
        self.write(&signed, CertificateParams::new(["127.0.0.1".to_owned()]).unwrap());
        signed
    }

    /// Puts one in its place that was valid until yesterday.
    pub fn expire(&self, signed: &ServerCertificate) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let now = SystemTime::now();
        params.not_before = (now - 30 * DAY).into();
        params.not_after = (now - DAY).into();
        self.write(signed, params);
    }

    fn write(&self, to: &ServerCertificate, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        fs::write(&to.certificate, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&to.key, key.serialize_pem()).unwrap();
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
