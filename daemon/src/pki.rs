//! Certificates and tokens, all derived from the cluster's key: nothing to hand out, nothing to renew.
//!
//! Every node makes the same certificate authority from the same key, and signs its own server certificate with
//! it. Whoever trusts the authority trusts every desktop of the flock, under the one name [`SERVER_NAME`], so
//! that a kubeconfig goes on working when addresses change.

use anyhow::Context;
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// The name that every node's certificate carries; clients ask for it as `tls-server-name`.
pub const SERVER_NAME: &str = "gaggle";

/// The cluster's certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// The authority whose private key is this seed (32 bytes derived from the cluster's key).
    pub fn from_seed(seed: &[u8; 32]) -> anyhow::Result<Self> {
        let secret = p256::SecretKey::from_slice(seed).context("deriving the certificate authority's key")?;
        let pem = secret.to_pkcs8_pem(LineEnding::LF).context("encoding the certificate authority's key")?;
        let key = KeyPair::from_pem(&pem).context("loading the certificate authority's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("gaggle cluster authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Fixed times: desktops' clocks differ, and the key lives exactly as long as the phrase does.
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
        let certificate_pem = params.self_signed(&key).context("signing the certificate authority")?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A server certificate for these names and addresses.
    fn issue(&self, host: &str, addresses: &[IpAddr]) -> anyhow::Result<CertifiedKey> {
        let key = KeyPair::generate().context("making a key for the API's certificate")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(host);
        let in_cluster = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let names = [SERVER_NAME, "localhost", host].into_iter().chain(in_cluster);
        for name in names {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.try_into().context("the node's name in a certificate")?));
        }
        for address in addresses {
            params.subject_alt_names.push(SanType::IpAddress(*address));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
        let certificate = params.signed_by(&key, &self.issuer).context("signing the API's certificate")?;
        let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let signing = rustls::crypto::ring::sign::any_ecdsa_type(&der).context("loading the API's key")?;
        Ok(CertifiedKey::new(vec![CertificateDer::from(certificate.der().to_vec())], signing))
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// The certificate that the API serves now. It is made anew when the node's addresses change.
pub struct ServerCertificate {
    authority: Authority,
    host: String,
    current: RwLock<(Vec<IpAddr>, Arc<CertifiedKey>)>,
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate").field("host", &self.host).finish_non_exhaustive()
    }
}

impl ServerCertificate {
    pub fn new(authority: Authority, host: &str, addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let addresses = with_loopback(addresses);
        let certificate = Arc::new(authority.issue(host, &addresses)?);
        Ok(Self { authority, host: host.to_owned(), current: RwLock::new((addresses, certificate)) })
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Makes a new certificate if these are other addresses than before.
    pub fn set_addresses(&self, addresses: &[IpAddr]) -> anyhow::Result<()> {
        let addresses = with_loopback(addresses);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == addresses {
            return Ok(());
        }
        let certificate = Arc::new(self.authority.issue(&self.host, &addresses)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (addresses, certificate);
        Ok(())
    }

    pub fn tls_config(self: &Arc<Self>) -> Arc<rustls::ServerConfig> {
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<_>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).1.clone())
    }
}

fn with_loopback(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = addresses.to_vec();
    all.push(IpAddr::from([127, 0, 0, 1]));
    all.push(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData;

    #[test]
    fn every_node_makes_the_same_authority() {
        let [a, b] = [(); 2].map(|()| Authority::from_seed(&[7; 32]).unwrap());
        assert_eq!(a.issuer.key().der_bytes(), b.issuer.key().der_bytes());
        let other = Authority::from_seed(&[8; 32]).unwrap();
        assert_ne!(a.issuer.key().der_bytes(), other.issuer.key().der_bytes());
    }

    #[test]
    fn a_changed_address_gets_a_new_certificate() {
        let certificate =
            ServerCertificate::new(Authority::from_seed(&[7; 32]).unwrap(), "ada", &[]).unwrap();
        let serial = || certificate.current.read().unwrap().1.cert[0].clone();
        let first = serial();
        certificate.set_addresses(&[]).unwrap();
        assert_eq!(first, serial());
        certificate.set_addresses(&["192.0.2.7".parse().unwrap()]).unwrap();
        assert_ne!(first, serial());
    }
}
