//! What a call shows: nothing, a user and password, or a token.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use tonic::metadata::MetadataMap;

/// Some clients leave the padding of Basic credentials out.
const BASE64_LENIENT: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// The credentials in a call's `authorization` header.
#[derive(PartialEq, Eq)]
pub enum Credentials<'a> {
    /// There is no such header.
    None,
    /// Scheme Basic.
    Password { user: String, password: String },
    /// Scheme Bearer.
    Bearer(&'a str),
    /// Something else, or a Basic that cannot be read.
    Unreadable,
}

impl<'a> Credentials<'a> {
    /// Reads the header.
    pub fn of(metadata: &'a MetadataMap) -> Self {
        let Some(header) = metadata.get("authorization") else { return Self::None };
        let Some((scheme, rest)) = header.to_str().ok().and_then(|header| header.trim().split_once(' ')) else { return Self::Unreadable };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            Self::Bearer(rest)
        } else if scheme.eq_ignore_ascii_case("basic") {
            basic(rest).unwrap_or(Self::Unreadable)
        } else {
            Self::Unreadable
        }
    }
}

fn basic(encoded: &str) -> Option<Credentials<'static>> {
    let decoded = String::from_utf8(BASE64_LENIENT.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(Credentials::Password { user: user.to_string(), password: password.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_in_any_case_and_basic_with_or_without_padding() {
        let read = |header: &str, expected: &dyn Fn(Credentials<'_>) -> bool| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", header.parse().unwrap());
            assert!(expected(Credentials::of(&metadata)), "{header}");
        };
        let ana =
            |found: Credentials<'_>| matches!(found, Credentials::Password { user, password } if user == "ana" && password == "sec:ret");
        for header in ["Basic YW5hOnNlYzpyZXQ=", "basic YW5hOnNlYzpyZXQ", "BASIC  YW5hOnNlYzpyZXQ= "] {
            read(header, &ana);
        }
        read("bearer  a.b.c", &|found| found == Credentials::Bearer("a.b.c"));
        for header in ["Basic %%", "Basic YW5h", "Digest x", "Bearer"] {
            read(header, &|found| found == Credentials::Unreadable);
        }
        assert!(Credentials::of(&MetadataMap::new()) == Credentials::None);
    }

    #[test]
    fn whatever_a_header_says_is_read_or_refused() {
        let headers = ["Basic YW5hOnNlYzpyZXQ=", "Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbmEifQ.AAAA", "basic  Og", "Digest a=b"];
        bowshot_mutations::near_texts(&headers, |case| {
            let mut metadata = MetadataMap::new();
            if let Ok(value) = tonic::metadata::AsciiMetadataValue::try_from(case.as_bytes()) {
                metadata.insert("authorization", value);
                let _ = Credentials::of(&metadata);
            }
        });
    }
}
