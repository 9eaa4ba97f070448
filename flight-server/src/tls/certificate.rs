//! What a certificate says of its holder: names and the time of its validity (RFC 5280). Signatures are rustls's matter; nothing that is
//! read here is believed before rustls has checked them, but for the server's own certificate.

use crate::config::CertificateName;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_BMPSTRING, TAG_IA5STRING, TAG_PRINTABLESTRING, TAG_UTCTIME, TAG_UTF8STRING};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, BERReaderSeq, Tag, parse_der};

/// id-at-commonName.
const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];
/// id-ce-subjectAltName.
const ALTERNATIVE_NAMES: [u64; 4] = [2, 5, 29, 17];
/// Kinds of alternative names by their tags: rfc822Name, dNSName, uniformResourceIdentifier.
const EMAIL: u64 = 1;
const DNS: u64 = 2;
const URI: u64 = 6;

/// The names in a certificate and when it is valid.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    common_names: Vec<String>,
    alternative_names: Vec<(u64, String)>,
    /// Seconds since the epoch.
    valid_from: i64,
    valid_until: i64,
}

impl Contents {
    /// Reads a certificate in DER form.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn of(der: &[u8]) -> Result<Self, String> {
        parse_der(der, |reader| {
            reader.read_sequence(|certificate| {
                let contents = certificate.next().read_sequence(to_be_signed)?;
                // Algorithm and signature.
                certificate.next().read_der()?;
                certificate.next().read_der()?;
                Ok(contents)
            })
        })
        .map_err(|error| format!("the certificate cannot be read: {error}"))
    }

    /// The one name of a kind.
    ///
    /// # Errors
    /// When there is none, or several that differ: which of them the holder is, nobody could say.
    pub fn name(&self, kind: CertificateName) -> Result<&str, String> {
        let wanted = match kind {
            CertificateName::Cn => None,
            CertificateName::Dns => Some(DNS),
            CertificateName::Email => Some(EMAIL),
            CertificateName::Uri => Some(URI),
        };
        let names: Vec<&str> = match wanted {
            None => self.common_names.iter().map(String::as_str).collect(),
            Some(wanted) => self.alternative_names.iter().filter(|(kind, _)| *kind == wanted).map(|(_, name)| name.as_str()).collect(),
        };
        match names.as_slice() {
            [name] => Ok(name),
            [] => Err(format!("it has no name of the kind {kind:?} (tls.client_user)")),
            [..] => Err(format!("it has several names of the kind {kind:?} (tls.client_user), and a user has one")),
        }
    }

    /// When it ends.
    pub fn valid_until(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(self.valid_until).unwrap_or_default())
    }

    /// Whether its time has not come or is over.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn check_time(&self, now: SystemTime) -> Result<(), String> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        let date = |seconds: i64| bowshot_engine::port::followed::date(u64::try_from(seconds).unwrap_or_default());
        match now {
            now if now > self.valid_until => Err(format!("expired on {}", date(self.valid_until))),
            now if now < self.valid_from => {
                Err(format!("is not valid before {}: compare with this machine's clock", date(self.valid_from)))
            }
            _ => Ok(()),
        }
    }
}

fn to_be_signed(fields: &mut BERReaderSeq<'_, '_>) -> ASN1Result<Contents> {
    let mut contents = Contents::default();
    // Version, serial number, algorithm, issuer.
    fields.read_optional(|version| version.read_tagged(Tag::context(0), |version| version.read_u8()))?;
    for _ in 0..3 {
        fields.next().read_der()?;
    }
    (contents.valid_from, contents.valid_until) = fields.next().read_sequence(|times| Ok((time(times.next())?, time(times.next())?)))?;
    contents.common_names =
        fields.next().collect_sequence_of(|part| part.collect_set_of(attribute))?.into_iter().flatten().flatten().collect();
    // The public key; unique identifiers that nobody uses.
    fields.next().read_der()?;
    for tag in [1, 2] {
        fields
            .read_optional(|identifier| identifier.read_tagged_implicit(Tag::context(tag), |identifier| identifier.read_bitvec_bytes()))?;
    }
    let extensions = fields.read_optional(|all| all.read_tagged(Tag::context(3), |all| all.collect_sequence_of(extension)))?;
    contents.alternative_names = extensions.into_iter().flatten().flatten().flatten().collect();
    Ok(contents)
}

fn time(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    Ok(match reader.lookahead_tag()? {
        TAG_UTCTIME => reader.read_utctime()?.datetime().unix_timestamp(),
        _ => reader.read_generalized_time()?.datetime().unix_timestamp(),
    })
}

/// The value of an attribute of the subject, if it is a common name.
fn attribute(reader: BERReader<'_, '_>) -> ASN1Result<Option<String>> {
    reader.read_sequence(|attribute| {
        let kind = attribute.next().read_oid()?;
        let value = attribute.next();
        if kind != ObjectIdentifier::from_slice(&COMMON_NAME) {
            value.read_der()?;
            return Ok(None);
        }
        Ok(Some(match value.lookahead_tag()? {
            TAG_UTF8STRING => value.read_utf8string()?,
            TAG_PRINTABLESTRING => value.read_printable_string()?,
            TAG_IA5STRING => value.read_ia5_string()?,
            TAG_BMPSTRING => value.read_bmp_string()?,
            _ => return Err(ASN1Error::new(ASN1ErrorKind::Invalid)),
        }))
    })
}

/// The names in an extension, if it is the one of alternative names.
fn extension(reader: BERReader<'_, '_>) -> ASN1Result<Option<Vec<(u64, String)>>> {
    reader.read_sequence(|extension| {
        let kind = extension.next().read_oid()?;
        extension.read_optional(|critical| critical.read_bool())?;
        let value = extension.next().read_bytes()?;
        if kind != ObjectIdentifier::from_slice(&ALTERNATIVE_NAMES) {
            return Ok(None);
        }
        parse_der(&value, |names| names.collect_sequence_of(alternative_name)).map(|names| Some(names.into_iter().flatten().collect()))
    })
}

fn alternative_name(reader: BERReader<'_, '_>) -> ASN1Result<Option<(u64, String)>> {
    let tag = reader.lookahead_tag()?;
    if tag != Tag::context(tag.tag_number) || ![EMAIL, DNS, URI].contains(&tag.tag_number) {
        reader.read_der()?;
        return Ok(None);
    }
    let name = reader.read_tagged_implicit(tag, |name| name.read_ia5_string())?;
    Ok(Some((tag.tag_number, name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn contents(common_names: &[&str], alternative: Vec<SanType>) -> Contents {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "not the name");
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = alternative;
        params.not_before = rcgen::date_time_ymd(2001, 2, 3);
        params.not_after = rcgen::date_time_ymd(2051, 2, 3);
        let key = KeyPair::generate().unwrap();
        Contents::of(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn names_of_every_kind_are_found() {
        let alternative = vec![
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
            SanType::DnsName("host.example".try_into().unwrap()),
            SanType::Rfc822Name("ana@example".try_into().unwrap()),
            SanType::URI("spiffe://example/ana".try_into().unwrap()),
        ];
        let found = contents(&["Ana Müller"], alternative);
        let name = |kind| found.name(kind).unwrap();
        assert_eq!(name(CertificateName::Cn), "Ana Müller");
        assert_eq!(name(CertificateName::Dns), "host.example");
        assert_eq!(name(CertificateName::Email), "ana@example");
        assert_eq!(name(CertificateName::Uri), "spiffe://example/ana");
    }

    #[test]
    fn a_holder_without_a_name_or_with_two_is_nobody() {
        let hosts = ["a.example", "b.example"].map(|name| SanType::DnsName(name.try_into().unwrap()));
        let found = contents(&[], hosts.to_vec());
        assert!(found.name(CertificateName::Cn).unwrap_err().contains("no name of the kind Cn"));
        assert!(found.name(CertificateName::Dns).unwrap_err().contains("several names"));
    }

    #[test]
    fn its_time_is_told_in_both_forms_of_dates() {
        let found = contents(&["ana"], vec![]);
        let at = |year| UNIX_EPOCH + Duration::from_secs(rcgen::date_time_ymd(year, 6, 1).unix_timestamp() as u64);
        assert!(found.check_time(at(2050)).is_ok());
        assert!(found.check_time(at(2051)).unwrap_err().contains("expired on 2051-02-03"));
        assert!(found.check_time(at(2000)).unwrap_err().contains("not valid before 2001-02-03"));
    }

    #[test]
    fn broken_certificates_are_errors_and_never_panics() {
        let key = KeyPair::generate().unwrap();
        let der = CertificateParams::new(vec!["host.example".into()]).unwrap().self_signed(&key).unwrap().der().to_vec();
        assert!(Contents::of(&der).is_ok());
        for length in 0..der.len() {
            assert!(Contents::of(&der[..length]).is_err(), "{length}");
        }
        for position in 0..der.len() {
            let mut broken = der.clone();
            broken[position] ^= 0xff;
            drop(Contents::of(&broken));
        }
    }
}
