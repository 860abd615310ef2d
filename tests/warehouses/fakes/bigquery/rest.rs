//! Tokens, jobs, datasets and tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{CLIENT_ID, CLIENT_SECRET, EMAIL, Job, LOCATION, PROJECT, REFRESH_TOKEN, State};

const SCOPE: &str = "https://www.googleapis.com/auth/bigquery";

pub async fn serve(listener: TcpListener, state: Arc<State>) {
    let app = Router::new().fallback(move |request: Request| {
        let state = state.clone();
        async move { answer(&state, request).await }
    });
    axum::serve(listener, app).await.expect("the server");
}

fn respond(status: u16, body: &Value) -> Response {
    Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header(header::CONTENT_TYPE, "application/json; charset=UTF-8")
        .body(Body::from(body.to_string()))
        .expect("an answer")
}

fn refuse(code: u16, reason: &str, message: &str) -> Response {
    let status = match code {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ALREADY_EXISTS",
        _ => "UNAVAILABLE",
    };
    let errors = json!([{ "message": message, "domain": "global", "reason": reason }]);
    respond(code, &json!({ "error": { "code": code, "message": message, "errors": errors, "status": status } }))
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

async fn answer(state: &Arc<State>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 10 << 20).await.expect("a body");
    let path: Vec<String> = parts
        .uri
        .path()
        .trim_matches('/')
        .split('/')
        .map(|part| pairs(&format!("x={}", part.replace('+', "%2B")))["x"].clone())
        .collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let query = pairs(parts.uri.query().unwrap_or_default());
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    match (&parts.method, path.as_slice()) {
        (&Method::POST, ["token"]) => return token(state, &pairs(&String::from_utf8_lossy(&body))),
        (&Method::GET, ["computeMetadata", "v1", "instance", "service-accounts", "default", "token"]) => {
            return match header("metadata-flavor") {
                Some("Google") if query.get("scopes").map(String::as_str) == Some(SCOPE) => grant(state),
                _ => respond(403, &json!("no Metadata-Flavor")),
            };
        }
        _ => {}
    }

    state.requests.fetch_add(1, Ordering::Relaxed);
    {
        let mut inner = state.inner();
        if inner.faults.pages > 0 {
            inner.faults.pages -= 1;
            let page = Response::builder().status(StatusCode::BAD_GATEWAY).header(header::CONTENT_TYPE, "text/html");
            return page.body(Body::from("<html>502 Bad Gateway</html>")).expect("a page");
        }
        if let Some((times, seconds)) = inner.faults.throttle.as_mut().filter(|(times, _)| *times > 0) {
            *times = times.saturating_sub(1);
            let mut response = refuse(403, "rateLimitExceeded", "Exceeded rate limits: too many api requests per user");
            response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            return response;
        }
    }
    if !state.is_valid(header("authorization")) {
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
        return refuse(401, "authError", message);
    }
    if let Some((code, reason, message)) = state.inner().faults.refuse.clone() {
        return refuse(code, reason, &message);
    }
    let ["bigquery", "v2", "projects", project, rest @ ..] = path.as_slice() else {
        return refuse(404, "notFound", "no such path");
    };
    if *project != PROJECT && *project != "other-project" {
        return refuse(404, "notFound", &format!("Not found: Project {project}"));
    }
    match (&parts.method, rest) {
        (&Method::POST, ["jobs"]) => insert(state, &serde_json::from_slice(&body).expect("JSON")).await,
        (&Method::GET, ["jobs", id]) => with_job(state, id, &query, |state, id| respond(200, &shown(state, id))),
        (&Method::POST, ["jobs", id, "cancel"]) => with_job(state, id, &query, |state, id| {
            let mut inner = state.inner();
            inner.cancels.push(id.to_string());
            if let Some(job) = inner.jobs.get_mut(id) {
                job.cancelled = true;
            }
            drop(inner);
            respond(200, &json!({ "kind": "bigquery#jobCancelResponse", "job": shown(state, id) }))
        }),
        (&Method::GET, ["datasets"]) => respond(200, &datasets(query.get("pageToken").map(String::as_str))),
        (&Method::GET, ["datasets", dataset, "tables"]) => {
            respond(200, &tables(project, dataset, query.get("pageToken").map(String::as_str)))
        }
        (&Method::GET, ["datasets", dataset, "tables", table]) => match table_fields(table) {
            Some(fields) => respond(
                200,
                &json!({ "kind": "bigquery#table", "schema": { "fields": fields }, "numRows": "3", "type": "TABLE" }),
            ),
            None => refuse(404, "notFound", &format!("Not found: Table {project}:{dataset}.{table}")),
        },
        _ => refuse(404, "notFound", "no such path"),
    }
}

fn grant(state: &State) -> Response {
    let number = state.tokens_granted.fetch_add(1, Ordering::Relaxed);
    let token = format!("ya29.{number}-{}", uuid::Uuid::new_v4().simple());
    let mut inner = state.inner();
    inner.tokens.insert(token.clone());
    let seconds = inner.faults.token_seconds.unwrap_or(3599);
    respond(200, &json!({ "access_token": token, "expires_in": seconds, "token_type": "Bearer" }))
}

fn token(state: &State, form: &BTreeMap<String, String>) -> Response {
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let denied = |status, error: &str, why: &str| respond(status, &json!({ "error": error, "error_description": why }));
    match field("grant_type") {
        "urn:ietf:params:oauth:grant-type:jwt-bearer" => match check_assertion(state, field("assertion")) {
            Ok(()) => grant(state),
            Err(why) => denied(400, "invalid_grant", why),
        },
        "refresh_token" if field("client_id") != CLIENT_ID || field("client_secret") != CLIENT_SECRET => {
            denied(401, "invalid_client", "The OAuth client was not found.")
        }
        "refresh_token" if field("refresh_token") != REFRESH_TOKEN => {
            denied(400, "invalid_grant", "Token has been expired or revoked.")
        }
        "refresh_token" => grant(state),
        _ => denied(400, "unsupported_grant_type", "Invalid grant_type"),
    }
}

/// RFC 7523, and what Google asks of it.
fn check_assertion(state: &State, assertion: &str) -> Result<(), &'static str> {
    let (signed, signature) = assertion.rsplit_once('.').ok_or("Invalid JWT")?;
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "Invalid JWT: not base64");
    let provider = rustls::crypto::ring::default_provider();
    let schemes = provider.signature_verification_algorithms.mapping;
    let (_, algorithms) =
        schemes.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256).expect("RS256");
    let signature = decode(signature)?;
    let verified =
        algorithms.iter().any(|a| a.verify_signature(&state.public_key, signed.as_bytes(), &signature).is_ok());
    if !verified {
        return Err("Invalid JWT Signature.");
    }
    let (header, claims) = signed.split_once('.').ok_or("Invalid JWT")?;
    let parse = |text: &str| serde_json::from_slice::<Value>(&decode(text)?).map_err(|_| "Invalid JWT: not JSON");
    let (header, claims) = (parse(header)?, parse(claims)?);
    #[expect(clippy::disallowed_methods, reason = "a token server goes by the wall clock")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("now").as_secs();
    let number = |name: &str| claims[name].as_u64().unwrap_or_default();
    match () {
        () if header["alg"] != "RS256" || header["kid"] != "0123abcd" => Err("Invalid JWT: wrong header"),
        () if claims["iss"] != EMAIL => Err("Invalid grant: account not found"),
        () if claims["aud"] != format!("http://{}/token", state.address) => Err("Invalid JWT: wrong audience"),
        () if claims["scope"] != SCOPE => Err("Invalid OAuth scope"),
        () if number("iat") > now + 60 || number("exp") < now || number("exp") > number("iat") + 3600 => {
            Err("Invalid JWT: Token must be a short-lived token (60 minutes)")
        }
        () => Ok(()),
    }
}

async fn insert(state: &Arc<State>, body: &Value) -> Response {
    let configuration = &body["configuration"];
    let query = configuration["query"]["query"].as_str().expect("a query").to_string();
    if configuration["query"]["useLegacySql"] != false {
        return refuse(400, "invalidQuery", "the fake speaks GoogleSQL");
    }
    let location = body["jobReference"]["location"].as_str().unwrap_or(LOCATION);
    if location != LOCATION {
        return refuse(
            404,
            "notFound",
            &format!("Not found: Dataset {PROJECT}:shop was not found in location {location}"),
        );
    }
    let answer = match (state.script)(&query) {
        Ok(answer) => answer,
        Err((code, reason, message)) => return refuse(code, reason, &message),
    };
    if configuration["dryRun"] == true {
        state.inner().dry_runs.push(body.clone());
        let bytes = answer.bytes.to_string();
        return respond(
            200,
            &json!({
                "kind": "bigquery#job", "jobReference": { "projectId": PROJECT, "location": LOCATION },
                "configuration": configuration,
                "statistics": {
                    "totalBytesProcessed": bytes,
                    "query": {
                        "totalBytesProcessed": bytes, "totalBytesProcessedAccuracy": "PRECISE", "cacheHit": false,
                        "statementType": answer.statement_type, "schema": { "fields": answer.fields },
                    },
                },
                "status": { "state": "DONE" },
            }),
        );
    }
    let most = configuration["query"]["maximumBytesBilled"].as_str().and_then(|b| b.parse::<u64>().ok());
    if most.is_some_and(|most| answer.bytes > most) {
        let message = format!(
            "Query exceeded limit for bytes billed: {}. {} or higher required.",
            most.unwrap_or(0),
            answer.bytes
        );
        return refuse(400, "bytesBilledLimitExceeded", &message);
    }
    let id = body["jobReference"]["jobId"].as_str().expect("an ID").to_string();
    {
        let mut inner = state.inner();
        if inner.jobs.contains_key(&id) {
            return refuse(409, "duplicate", &format!("Already Exists: Job {PROJECT}:{LOCATION}.{id}"));
        }
        inner.inserted.push(body.clone());
        let job = Job { configuration: configuration.clone(), query, began: Instant::now(), cancelled: false };
        inner.jobs.insert(id.clone(), job);
        if inner.faults.lose_inserts > 0 {
            inner.faults.lose_inserts -= 1;
            // half an answer, and the end of the connection
            let half = [Ok("{\"kind\": \"big"), Err(std::io::Error::other("lost"))];
            return Response::new(Body::from_stream(futures::stream::iter(half)));
        }
    }
    respond(200, &shown(state, &id))
}

fn with_job(
    state: &State,
    id: &str,
    query: &BTreeMap<String, String>,
    then: impl FnOnce(&State, &str) -> Response,
) -> Response {
    let known = state.inner().jobs.contains_key(id);
    // outside of the US a job is found by its location only
    if !known || query.get("location").map(String::as_str) != Some(LOCATION) {
        return refuse(404, "notFound", &format!("Not found: Job {PROJECT}:{id}"));
    }
    then(state, id)
}

/// A job, as it is now.
fn shown(state: &State, id: &str) -> Value {
    let job = state.inner().jobs[id].clone();
    let answer = (state.script)(&job.query).ok();
    let limit = job.configuration["jobTimeoutMs"].as_str().and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let (takes, fails) = answer.map_or((Duration::ZERO, None), |a| (a.takes, a.fails));
    let ran = job.began.elapsed();
    let error = |reason: &str, message: &str| json!({ "reason": reason, "message": message });
    let status = if job.cancelled {
        let stopped = error("stopped", "Job execution was cancelled: User requested cancellation");
        json!({ "state": "DONE", "errorResult": stopped, "errors": [stopped] })
    } else if limit.is_some_and(|limit| ran > limit && takes > limit) {
        let stopped = error("stopped", "Job execution was cancelled: Job timed out");
        json!({ "state": "DONE", "errorResult": stopped, "errors": [stopped] })
    } else if ran < takes {
        json!({ "state": if ran.as_millis() < 100 { "PENDING" } else { "RUNNING" } })
    } else if let Some((reason, message)) = fails {
        let failed = error(reason, &message);
        json!({ "state": "DONE", "errorResult": failed, "errors": [failed] })
    } else {
        json!({ "state": "DONE" })
    };
    let mut configuration = job.configuration;
    configuration["jobType"] = "QUERY".into();
    configuration["query"]["destinationTable"] =
        json!({ "projectId": PROJECT, "datasetId": "_0123456789abcdef", "tableId": format!("anon_{id}") });
    json!({
        "kind": "bigquery#job", "etag": "x", "id": format!("{PROJECT}:{LOCATION}.{id}"), "selfLink": "https://x/",
        "jobReference": { "projectId": PROJECT, "jobId": id, "location": LOCATION },
        "configuration": configuration, "status": status, "user_email": EMAIL,
        "statistics": {
            "creationTime": "1772296215000", "startTime": "1772296215001", "totalSlotMs": "17",
            "query": {
                "statementType": "SELECT", "totalBytesBilled": "10485760", "cacheHit": false,
                "queryPlan": [{ "name": "S00: Output", "id": "0", "computeRatioAvg": 1.0, "recordsRead": "3", "steps": [
                    { "kind": "READ", "substeps": ["FROM shop.people"] },
                ] }],
                "timeline": [{ "elapsedMs": "12", "totalSlotMs": "17", "pendingUnits": "0", "completedUnits": "1" }],
            },
        },
    })
}

/// In pages of one.
fn datasets(page: Option<&str>) -> Value {
    let dataset = |id: &str| {
        json!({ "kind": "bigquery#dataset", "id": id, "location": LOCATION,
                "datasetReference": { "projectId": PROJECT, "datasetId": id } })
    };
    match page {
        None => {
            json!({ "kind": "bigquery#datasetList", "etag": "x", "nextPageToken": "p2", "datasets": [dataset("shop")] })
        }
        Some(_) => json!({ "kind": "bigquery#datasetList", "etag": "x", "datasets": [dataset("empty")] }),
    }
}

/// In pages of one; an empty dataset has no `tables`.
fn tables(project: &str, dataset: &str, page: Option<&str>) -> Value {
    let table = |id: &str, kind: &str| {
        json!({ "kind": "bigquery#table", "type": kind, "creationTime": "1772296215000",
                "timePartitioning": { "type": "DAY" }, "clustering": { "fields": ["id"] },
                "tableReference": { "projectId": project, "datasetId": dataset, "tableId": id } })
    };
    let mut list = json!({ "kind": "bigquery#tableList", "etag": "x", "totalItems": 2 });
    match (dataset, page) {
        ("shop", None) => {
            list["tables"] = json!([table("people", "TABLE")]);
            list["nextPageToken"] = "p2".into();
        }
        ("shop", Some(_)) => list["tables"] = json!([table("odd name", "MATERIALIZED_VIEW")]),
        _ => list["totalItems"] = 0.into(),
    }
    list
}

fn table_fields(table: &str) -> Option<Value> {
    (table == "people").then(|| {
        json!([
            { "name": "id", "type": "INTEGER", "mode": "REQUIRED" }, { "name": "name", "type": "STRING" },
            { "name": "balance", "type": "NUMERIC", "precision": "20", "scale": "4" }, { "name": "photo", "type": "BYTES" },
            { "name": "stay", "type": "RANGE", "rangeElementType": { "type": "DATE" } },
            { "name": "tags", "type": "STRING", "mode": "REPEATED" }, { "name": "odd", "type": "HOLOGRAM" },
        ])
    })
}
