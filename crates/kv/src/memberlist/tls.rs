//! TLS between members: everybody shows the same certificate to those who connect and to those it connects to, and verifies
//! those whom it connects to. As in Cortex, nobody asks who connects.

use std::path::Path;
use std::sync::Arc;

use ringkit_config::MemberlistConfig;
use ringkit_gossip::driver::Tls;
use ringkit_gossip::driver::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use ringkit_gossip::driver::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use ringkit_gossip::driver::rustls::pki_types::pem::PemObject as _;
use ringkit_gossip::driver::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use ringkit_gossip::driver::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};

use super::BACKEND;
use crate::error::Error;

/// What is configured; `None` without TLS.
pub(super) fn configured(config: &MemberlistConfig) -> Result<Option<Tls>, Error> {
    if !config.tls_enabled {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let chain = certificates("tls_cert_path", &config.tls_cert_path)?;
    let key = || private_key(&config.tls_key_path);
    let unusable = |cause: rustls::Error| {
        let (certificate, key) = (&config.tls_cert_path, &config.tls_key_path);
        wrong("tls_cert_path", format!("cannot be used: `{certificate}` with the key `{key}`: {cause}"))
    };
    let versions = |cause: rustls::Error| wrong("tls_enabled", format!("cannot be used: {cause}"));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(versions)?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key()?)
        .map_err(unusable)?;
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(versions)?;
    let client = if config.tls_insecure_skip_verify {
        client.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        client.with_root_certificates(roots(config)?)
    };
    let client = client.with_client_auth_cert(chain, key()?).map_err(unusable)?;
    let server_name = match config.tls_server_name.as_str() {
        "" => None,
        name => Some(ServerName::try_from(name.to_owned()).map_err(|cause| {
            wrong("tls_server_name", format!("cannot be used: `{name}` is no name: {cause}"))
        })?),
    };
    Ok(Some(Tls { client: Arc::new(client), server: Arc::new(server), server_name }))
}

fn wrong(key: &'static str, reason: String) -> Error {
    Error::Misconfigured { backend: BACKEND, key, reason }
}

/// The authorities that are trusted.
fn roots(config: &MemberlistConfig) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if config.tls_ca_path.is_empty() {
        // Those of the system, of which some may be odd.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let reason = "is not set, and this machine has no certificates of authorities".to_owned();
            return Err(wrong("tls_ca_path", reason));
        }
        return Ok(roots);
    }
    let path = &config.tls_ca_path;
    for certificate in certificates("tls_ca_path", path)? {
        let bad = |cause| wrong("tls_ca_path", format!("cannot be used: `{path}`: {cause}"));
        roots.add(certificate).map_err(bad)?;
    }
    Ok(roots)
}

fn certificates(key: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |cause: rustls::pki_types::pem::Error| unreadable(key, path, &cause);
    let certificates = CertificateDer::pem_file_iter(file(key, path)?).map_err(bad)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(bad)?;
    if certificates.is_empty() {
        return Err(wrong(key, format!("cannot be used: there is no certificate in `{path}`")));
    }
    Ok(certificates)
}

fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, Error> {
    const KEY: &str = "tls_key_path";
    PrivateKeyDer::from_pem_file(file(KEY, path)?).map_err(|cause| unreadable(KEY, path, &cause))
}

fn file<'a>(key: &'static str, path: &'a str) -> Result<&'a Path, Error> {
    if path.is_empty() {
        return Err(wrong(
            key,
            "is not set, but `tls_enabled` is: every member needs a certificate".to_owned(),
        ));
    }
    Ok(Path::new(path))
}

fn unreadable(key: &'static str, path: &str, cause: &dyn std::fmt::Display) -> Error {
    wrong(key, format!("cannot be used: cannot read `{path}`: {cause}"))
}

/// Takes any certificate: whoever answers may be anybody, but nobody listens in.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use ringkit_testkit::Certs;

    use super::*;

    fn config(certs: &Certs) -> MemberlistConfig {
        let path = |name: &str| certs.path(name).display().to_string();
        MemberlistConfig {
            tls_enabled: true,
            tls_cert_path: path("server.pem"),
            tls_key_path: path("server.key"),
            tls_ca_path: path("ca.pem"),
            ..MemberlistConfig::default()
        }
    }

    #[test]
    fn what_is_wrong_with_tls_is_said_by_key_and_path() {
        let certs = Certs::new(&["127.0.0.1"]).unwrap();
        let good = config(&certs);
        assert!(configured(&MemberlistConfig::default()).unwrap().is_none());
        assert!(configured(&good).unwrap().unwrap().server_name.is_none());
        let skips = MemberlistConfig { tls_insecure_skip_verify: true, ..good.clone() };
        assert!(configured(&skips).unwrap().is_some());
        let missing = "/does/not/exist.pem".to_owned();
        let other_key = certs.path("client.key").display().to_string();
        let no_key = certs.path("ca.pem").display().to_string();
        for (config, key, path) in [
            (MemberlistConfig { tls_cert_path: missing.clone(), ..good.clone() }, "tls_cert_path", &missing),
            (MemberlistConfig { tls_key_path: missing.clone(), ..good.clone() }, "tls_key_path", &missing),
            (MemberlistConfig { tls_ca_path: missing.clone(), ..good.clone() }, "tls_ca_path", &missing),
            (MemberlistConfig { tls_key_path: no_key.clone(), ..good.clone() }, "tls_key_path", &no_key),
            (
                MemberlistConfig { tls_key_path: other_key.clone(), ..good.clone() },
                "tls_cert_path",
                &other_key,
            ),
            (
                MemberlistConfig { tls_cert_path: other_key.clone(), ..good.clone() },
                "tls_cert_path",
                &other_key,
            ),
            (
                MemberlistConfig { tls_cert_path: String::new(), ..good.clone() },
                "tls_cert_path",
                &"tls_enabled".to_owned(),
            ),
            (
                MemberlistConfig { tls_server_name: "a b".to_owned(), ..good.clone() },
                "tls_server_name",
                &"a b".to_owned(),
            ),
        ] {
            let error = configured(&config).err().unwrap().to_string();
            assert!(error.contains(key) && error.contains(path.as_str()), "{error}");
        }
    }
}
