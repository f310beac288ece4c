//! TLS to servers that are not ours: whom we trust, and what it means, for an operator, when there is no agreement.
//!
//! The libraries of the three stores make their own connections; what is here they all use.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, RootCertStore};

/// To find out what a server says to TLS.
const LOOK: Duration = Duration::from_secs(1);
/// A server that wants a certificate of ours says so after the handshake, if it does.
const AFTERTHOUGHT: Duration = Duration::from_millis(200);

/// Names of settings, for messages.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Whether connections are encrypted.
    pub tls: &'static str,
    /// Whom to trust.
    pub ca_file: &'static str,
    /// Where the server is.
    pub address: &'static str,
}

/// Who may sign the certificate of a server.
#[derive(Debug)]
pub struct Trust {
    keys: Keys,
    /// Whose certificates these are.
    source: String,
    certificates: Vec<CertificateDer<'static>>,
    client: Arc<ClientConfig>,
}

impl Trust {
    /// The certificates of a file, or, without one, those that this system trusts.
    pub fn load(keys: Keys, ca_file: &Path) -> Result<Self, String> {
        // Libraries that choose none take this one.
        let _ = ring::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        let (certificates, source) = if ca_file.as_os_str().is_empty() {
            let mut certificates = rustls_native_certs::load_native_certs().certs;
            // One that cannot be read is of no use to anybody, and no reason to do without the others.
            certificates.retain(|certificate| roots.add(certificate.clone()).is_ok());
            if certificates.is_empty() {
                let problem = "this system has no certificates to trust; install ca-certificates, or name a file";
                return Err(format!("{}: {problem}", keys.ca_file));
            }
            (certificates, "this system".to_owned())
        } else {
            let problem = |what: &dyn Display| format!("{}: {}: {what}", keys.ca_file, ca_file.display());
            let bytes = std::fs::read(ca_file).map_err(|error| problem(&error))?;
            let certificates: Vec<_> =
                CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| problem(&error))?;
            if certificates.is_empty() {
                return Err(problem(&"holds no certificate that begins with -----BEGIN CERTIFICATE-----"));
            }
            for certificate in &certificates {
                roots.add(certificate.clone()).map_err(|error| problem(&error))?;
            }
            (certificates, ca_file.display().to_string())
        };
        Ok(Self { keys, source, certificates, client: client(roots) })
    }

    /// For libraries that take a connector.
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.client.clone())
    }

    /// For libraries that take certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// For libraries that take text.
    pub fn pem(&self) -> Vec<u8> {
        let one = |certificate: &CertificateDer| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(certificate))
        };
        self.certificates.iter().map(one).collect::<String>().into_bytes()
    }

    /// Connects.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        handshake(&self.connector(), host, port).await
    }

    /// Connects once more, to learn why a server and we cannot agree on TLS, for libraries that do not say so. `None`: we can,
    /// or it gives no answer.
    pub async fn why_refused(&self, host: &str, port: u16) -> Option<String> {
        let looking = async {
            let mut stream = match self.connect(host, port).await {
                Ok(stream) => stream,
                Err(error) => return self.problem(&error, host, port),
            };
            match tokio::time::timeout(AFTERTHOUGHT, stream.read_u8()).await {
                Ok(Err(error)) => self.problem(&error, host, port),
                _ => None,
            }
        };
        tokio::time::timeout(LOOK, looking).await.ok()?
    }

    /// What an error of a connection says about TLS, in a line that names the setting; `None`: nothing.
    pub fn problem(&self, error: &io::Error, host: &str, port: u16) -> Option<String> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(self.explain(error, host, port))
    }

    /// That there is somebody, who answers in another way.
    pub fn does_not_speak_tls(&self, host: &str, port: u16) -> String {
        let Keys { tls, address, .. } = self.keys;
        format!("{tls}: {host}:{port} does not speak TLS: correct the port in {address}, or set {tls}: off")
    }

    /// What an error of TLS itself means, in a line that names the setting.
    pub fn explain(&self, error: &rustls::Error, host: &str, port: u16) -> String {
        let Keys { tls, ca_file, address } = self.keys;
        let server = format!("{host}:{port}");
        match error {
            rustls::Error::InvalidCertificate(problem) => match problem {
                // The second: by another CA of the same name, such as one that was made anew.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    let source = &self.source;
                    format!(
                        "{ca_file}: the certificate of {server} is signed by nobody whom {source} names; name its CA's file"
                    )
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                    "{tls}: the certificate of {server} is not made out for {host}: correct {address}, or the certificate"
                ),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    format!(
                        "{tls}: the certificate of {server} has expired: renew it, if the clock of this machine is right"
                    )
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    format!("{tls}: the certificate of {server} is not valid yet; is the clock of this machine right?")
                }
                other => format!("{tls}: the certificate of {server} cannot be accepted: {other}"),
            },
            rustls::Error::InvalidMessage(_) => self.does_not_speak_tls(host, port),
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
            ) => {
                format!(
                    "{tls}: {server} refuses the handshake ({error}); it may want a certificate of its clients, which \
                     seckill has none of"
                )
            }
            error => format!("{tls}: {server}: {error}"),
        }
    }
}

/// Whether a server that does not understand us without TLS understands TLS.
pub async fn speaks_tls(host: &str, port: u16) -> bool {
    // Trusts nobody, so a server that speaks TLS is refused, or refuses us, in words of TLS.
    let connector = TlsConnector::from(client(RootCertStore::empty()));
    let answer = tokio::time::timeout(LOOK, handshake(&connector, host, port)).await;
    let error = match &answer {
        Ok(Err(error)) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => return false,
    };
    matches!(error, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)))
}

/// A host as it is called without the brackets that an IPv6 address has in a URL.
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

async fn handshake(connector: &TlsConnector, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
    let host = bare(host);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    connector.connect(name, TcpStream::connect((host, port)).await?).await
}

fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring knows the ciphers of TLS 1.2 and 1.3");
    Arc::new(versions.with_root_certificates(roots).with_no_client_auth())
}
