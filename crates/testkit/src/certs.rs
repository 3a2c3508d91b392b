//! Certificates for one test: an authority, a server's and a client's.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::error::Error;

/// A certificate authority of its own, with one certificate for a server and one for a client, as PEM files in a directory
/// that goes when this is dropped.
#[derive(Debug)]
pub struct Certs {
    dir: TempDir,
}

impl Certs {
    /// Makes an authority, and a server's certificate for the DNS names and IP addresses in `names`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for the directory, and for a name that is none.
    pub fn new(names: &[&str]) -> Result<Self, Error> {
        let dir = TempDir::with_prefix("ringkit-certs-");
        let certs =
            Self { dir: dir.map_err(|cause| Error::io("creating a directory for certificates", cause))? };
        let wrong = |cause: rcgen::Error| Error::io("making certificates", std::io::Error::other(cause));
        let key = || KeyPair::generate().map_err(wrong);
        let params = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            CertificateParams::new(names).map_err(wrong)
        };
        let mut authority = params(&[])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, key()?).map_err(wrong)?;
        certs.write("ca.pem", &authority.pem())?;
        for (name, names) in [("server", names), ("client", &["client"][..])] {
            let key = key()?;
            let cert = params(names)?.signed_by(&key, &authority).map_err(wrong)?;
            certs.write(&format!("{name}.pem"), &cert.pem())?;
            certs.write(&format!("{name}.key"), &key.serialize_pem())?;
        }
        Ok(certs)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        std::fs::write(self.path(name), text).map_err(|cause| Error::io("writing a certificate", cause))
    }

    /// The file `name`: `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of all.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
