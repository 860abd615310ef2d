//! Is the ID token the provider's, for us, for this sign-in, and of now?

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::{OidcConfig, OidcError};

/// What both clocks may differ by, in seconds.
const LEEWAY: f64 = 60.0;
/// Keys that are tried for a token that names none.
const MOST_KEYS: usize = 10;

/// What the provider says of a person.
#[derive(Debug, Clone, Deserialize)]
pub struct Claims {
    iss: String,
    pub sub: String,
    aud: OneOrMany,
    /// Seconds since 1970; some providers write fractions.
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    nonce: Option<String>,
    azp: Option<String>,
    pub email: Option<String>,
    email_verified: Option<Value>,
    pub name: Option<String>,
    /// The others, which may name roles.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Claims {
    /// The e-mail, if the provider vouches for it.
    pub fn verified_email(&self) -> Option<&str> {
        // some providers write the word
        let verified = match self.email_verified.as_ref()? {
            Value::Bool(verified) => *verified,
            Value::String(word) => word == "true",
            _ => false,
        };
        self.email.as_deref().filter(|_| verified)
    }
}

fn untrusted(why: impl Into<String>) -> OidcError {
    OidcError::Untrusted(why.into())
}

/// Which key and algorithm the token claims. Nothing of it counts yet.
pub fn header(id_token: &SecretString) -> Result<Header, OidcError> {
    jsonwebtoken::decode_header(id_token.expose_secret()).map_err(|_| untrusted("the ID token's header is faulty"))
}

/// Does the key fit the algorithm? The key decides: a token that asks for HS256, to have a public key taken for a
/// shared secret, finds none.
fn fits(key: &Jwk, header: &Header) -> bool {
    let signs = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
    let named = header.kid.is_none() || header.kid == key.common.key_id;
    let kind = match (&key.algorithm, header.alg) {
        (AlgorithmParameters::RSA(_), Algorithm::RS256) => {
            matches!(key.common.key_algorithm, None | Some(KeyAlgorithm::RS256))
        }
        (AlgorithmParameters::EllipticCurve(key_of), Algorithm::ES256) => {
            key_of.curve == EllipticCurve::P256 && matches!(key.common.key_algorithm, None | Some(KeyAlgorithm::ES256))
        }
        _ => false,
    };
    signs && named && kind
}

/// The claims of a token that holds.
pub fn verify(
    id_token: &SecretString,
    header: &Header,
    keys: &[Jwk],
    config: &OidcConfig,
    nonce: &str,
    now: DateTime<Utc>,
) -> Result<Claims, OidcError> {
    if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
        return Err(untrusted(format!("the ID token is signed with {:?}, which is not accepted", header.alg)));
    }
    // only the signature: claims are judged below, by this program's clock
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims = keys.iter().filter(|key| fits(key, header)).take(MOST_KEYS).find_map(|key| {
        let key = DecodingKey::from_jwk(key).ok()?;
        jsonwebtoken::decode::<Claims>(id_token.expose_secret(), &key, &validation).ok()
    });
    let claims = claims.ok_or_else(|| untrusted("no key of the provider made the ID token's signature"))?.claims;
    check(&claims, config, nonce, now)?;
    Ok(claims)
}

fn check(claims: &Claims, config: &OidcConfig, nonce: &str, now: DateTime<Utc>) -> Result<(), OidcError> {
    let now = now.timestamp() as f64;
    if claims.iss != config.issuer {
        return Err(untrusted("the ID token is of another issuer"));
    }
    let audience = claims.aud.as_slice();
    if !audience.contains(&config.client_id) {
        return Err(untrusted("the ID token is for another client"));
    }
    match &claims.azp {
        Some(azp) if *azp != config.client_id => return Err(untrusted("the ID token was made for another client")),
        None if audience.len() > 1 => return Err(untrusted("the ID token does not say which client it was made for")),
        _ => {}
    }
    // written so that NaN fails
    let in_time = claims.exp > now - LEEWAY
        && claims.iat <= now + LEEWAY
        && claims.nbf.is_none_or(|not_before| not_before <= now + LEEWAY);
    if !in_time {
        return Err(untrusted("the ID token has expired, or is of the future: check both machines' clocks"));
    }
    let ours = claims.nonce.as_deref().is_some_and(|given| given.as_bytes().ct_eq(nonce.as_bytes()).into());
    if !ours {
        return Err(untrusted("the ID token is of another sign-in"));
    }
    if claims.sub.is_empty() || claims.sub.len() > 255 {
        return Err(untrusted("the ID token names nobody"));
    }
    Ok(())
}
