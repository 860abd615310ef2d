//! A small identity provider with real keys. It keeps to OpenID Connect, as strictly as a real one: registered client,
//! codes that count once, PKCE. What it says in its ID tokens is up to the test.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const CLIENT: &str = "cloud connect";
pub const SECRET: &str = "s3cret:with/odd+characters";

/// How an ID token is signed.
#[derive(Debug, Clone, Copy)]
pub enum Signing {
    Rs256,
    Es256,
    /// `alg: none`
    None,
    /// As HS256, with what everybody can read as the secret.
    Hs256WithThePublicKey,
    /// As RS256, with a key that is not published, under the name of one that is.
    AnotherKey,
}

pub struct Provider {
    pub issuer: String,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    issuer: String,
    rsa: Key,
    another: Key,
    ec_private: Vec<u8>,
    ec_public: Vec<u8>,
    answer: Mutex<(Signing, Value)>,
    /// By code: what was asked for.
    codes: Mutex<HashMap<String, HashMap<String, String>>>,
}

struct Key {
    private: Vec<u8>,
    public: Vec<u8>,
    modulus: String,
}

pub fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the provider's clock is the machine's")]
    chrono::Utc::now().timestamp()
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Key {
    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key.pem");
        let file = file.to_str().unwrap();
        openssl(&["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", file]);
        let private = std::fs::read(file).unwrap();
        let public = openssl(&["rsa", "-in", file, "-pubout"]);
        let text = String::from_utf8(openssl(&["rsa", "-in", file, "-noout", "-modulus"])).unwrap();
        let hex = text.trim().strip_prefix("Modulus=").unwrap().as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let modulus: Vec<u8> = hex.chunks(2).map(byte).collect();
        Self { private, public, modulus: URL_SAFE_NO_PAD.encode(modulus) }
    }
}

impl Provider {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let issuer = format!("http://{}/realms/shop", listener.local_addr().unwrap());
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap();
        let shared = Arc::new(Shared {
            issuer: issuer.clone(),
            rsa: Key::make(),
            another: Key::make(),
            ec_private: ec.as_ref().to_vec(),
            ec_public: pair.public_key().as_ref().to_vec(),
            answer: Mutex::new((Signing::Rs256, json!({}))),
            codes: Mutex::default(),
        });
        let router = Router::new()
            .route("/realms/shop/.well-known/openid-configuration", get(description))
            .route("/realms/shop/keys", get(keys))
            .route("/realms/shop/authorize", get(authorize))
            .route("/realms/shop/token", post(token))
            .with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { issuer, shared, _runtime: runtime }
    }

    /// From now on ID tokens are signed so, and say this too (null: do not say it).
    pub fn answer(&self, signing: Signing, claims: Value) {
        *self.shared.answer.lock().unwrap() = (signing, claims);
    }
}

fn as_json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn description(State(shared): State<Arc<Shared>>) -> Response {
    let issuer = &shared.issuer;
    as_json(&json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
    }))
}

async fn keys(State(shared): State<Arc<Shared>>) -> Response {
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&shared.ec_public[range]);
    as_json(&json!({ "keys": [
        { "kty": "of the future", "kid": "new", "use": "sig" },
        { "kty": "RSA", "kid": "enc", "use": "enc", "n": shared.another.modulus, "e": "AQAB" },
        { "kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": shared.rsa.modulus, "e": "AQAB" },
        { "kty": "EC", "kid": "ec", "use": "sig", "crv": "P-256", "x": coordinate(1..33), "y": coordinate(33..65) },
    ]}))
}

async fn authorize(State(shared): State<Arc<Shared>>, Query(asked): Query<HashMap<String, String>>) -> Response {
    let is = |name: &str, value: &str| asked.get(name).is_some_and(|given| given == value);
    let scoped = asked.get("scope").is_some_and(|scope| scope.split(' ').any(|word| word == "openid"));
    let whole = ["state", "nonce", "code_challenge", "redirect_uri"].iter().all(|name| asked.contains_key(*name));
    if !(is("response_type", "code")
        && is("client_id", CLIENT)
        && is("code_challenge_method", "S256")
        && scoped
        && whole)
    {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let code = uuid::Uuid::new_v4().to_string();
    let back = format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]);
    shared.codes.lock().unwrap().insert(code, asked);
    (StatusCode::FOUND, [(header::LOCATION, back)]).into_response()
}

async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let refuse = |code: &str| (StatusCode::BAD_REQUEST, json!({ "error": code }).to_string()).into_response();
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let expected = format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(CLIENT), encode(SECRET))));
    if headers.get(header::AUTHORIZATION).is_none_or(|given| given != expected.as_str()) {
        return refuse("invalid_client");
    }
    let asked = form.get("code").and_then(|code| shared.codes.lock().unwrap().remove(code));
    let Some(asked) = asked.filter(|asked| form.get("redirect_uri") == asked.get("redirect_uri")) else {
        return refuse("invalid_grant");
    };
    let verifier = form.get("code_verifier").map(String::as_str).unwrap_or_default();
    if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) != asked["code_challenge"] {
        return refuse("invalid_grant");
    }
    let (signing, claims) = shared.answer.lock().unwrap().clone();
    let id_token = shared.id_token(signing, &asked["nonce"], &claims);
    as_json(&json!({ "access_token": "unused", "token_type": "Bearer", "id_token": id_token }))
}

impl Shared {
    fn id_token(&self, signing: Signing, nonce: &str, more: &Value) -> String {
        let mut claims = json!({
            "iss": self.issuer, "sub": "248289761001", "aud": CLIENT, "exp": now() + 300, "iat": now(), "nonce": nonce,
            "email": "Ada@example.com", "email_verified": true, "name": "Ada Lovelace",
        });
        let all = claims.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        all.retain(|_, value| !value.is_null());
        let signed = |algorithm: Algorithm, kid: &str, key: &EncodingKey| {
            let header = Header { kid: Some(kid.into()), ..Header::new(algorithm) };
            jsonwebtoken::encode(&header, &claims, key).unwrap()
        };
        match signing {
            Signing::Rs256 => signed(Algorithm::RS256, "rsa", &EncodingKey::from_rsa_pem(&self.rsa.private).unwrap()),
            Signing::AnotherKey => {
                signed(Algorithm::RS256, "rsa", &EncodingKey::from_rsa_pem(&self.another.private).unwrap())
            }
            Signing::Es256 => signed(Algorithm::ES256, "ec", &EncodingKey::from_ec_der(&self.ec_private)),
            Signing::Hs256WithThePublicKey => {
                signed(Algorithm::HS256, "rsa", &EncodingKey::from_secret(&self.rsa.public))
            }
            Signing::None => {
                let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
                format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT", "kid": "rsa" })), part(&claims))
            }
        }
    }
}
