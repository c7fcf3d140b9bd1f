//! A certificate authority for one trust domain. Its key is made at the start and is nowhere but in
//! memory; one of yours may be kept elsewhere, or be signed by another.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use crate::workload::X509svid;

pub struct Authority {
    /// The trust domain, as an identity.
    pub domain: String,
    /// The authority's own certificate, in DER.
    pub bundle: Vec<u8>,
    /// How long a certificate is good for.
    pub lifetime: Duration,
    issuer: Issuer<'static, KeyPair>,
}

/// How far the clocks of those who check a certificate may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

impl Authority {
    pub fn new(domain: &str, lifetime: Duration) -> Result<Self, Error> {
        let domain = format!("spiffe://{domain}");
        let mut params = params(&domain)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let bundle = params.self_signed(&key)?.der().to_vec();
        Ok(Self { domain, bundle, lifetime, issuer: Issuer::new(params, key) })
    }

    /// Returns a new key and certificate for `name`.
    pub fn issue(&self, name: &str) -> Result<X509svid, Error> {
        let spiffe_id = format!("{}/{name}", self.domain);
        let mut params = params(&spiffe_id)?;
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + self.lifetime;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(X509svid {
            spiffe_id,
            x509_svid: params.signed_by(&key, &self.issuer)?.der().to_vec(),
            x509_svid_key: key.serialize_der(),
            bundle: self.bundle.clone(),
        })
    }
}

fn params(id: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "samehost example");
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    Ok(params)
}
