//! `/openapi.json`, and at `/docs` Swagger UI, out of the binary: nothing is fetched from elsewhere.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::Path,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa_swagger_ui::Config;

use super::Description;
use crate::http::{code::Code, problem::Problem};

/// The description as it is sent.
static DESCRIPTION: LazyLock<Bytes> = LazyLock::new(|| {
    // Maps with text as keys, texts and numbers: writing them cannot fail, and a test reads them.
    serde_json::to_vec(&Description::openapi()).unwrap_or_default().into()
});

/// Describe the API
///
/// This document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "describe", tag = "Service", security(()),
    responses((status = 200, body = Object, description = "OpenAPI 3.1.")),
)]
pub async fn describe() -> Response {
    sent("application/json", DESCRIPTION.clone())
}

/// What the page may do: load its own files, ask its own server, and nothing else. The icons in Swagger UI's style sheet
/// are `data:` images.
const POLICY: (HeaderName, HeaderValue) = (
    header::CONTENT_SECURITY_POLICY,
    HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
);

/// `GET /docs`. Its links are relative, so that it works behind a proxy that adds a prefix.
pub async fn page() -> Response {
    let mut response =
        sent("text/html; charset=utf-8", Bytes::from_static(include_bytes!("page/index.html")));
    response.headers_mut().extend([POLICY]);
    response
}

/// `GET /docs/`: to where the relative links lead to what is there.
pub async fn page_with_slash() -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "../docs")]).into_response()
}

/// `GET /docs/{asset}`
pub async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    match name.as_str() {
        "page.js" => {
            Ok(sent("text/javascript; charset=utf-8", Bytes::from_static(include_bytes!("page/page.js"))))
        }
        "page.css" => {
            Ok(sent("text/css; charset=utf-8", Bytes::from_static(include_bytes!("page/page.css"))))
        }
        "swagger-ui-bundle.js" | "swagger-ui.css" | "favicon-32x32.png" => swagger_ui(&name),
        _ => Err(Code::RouteNotFound.into()),
    }
}

fn swagger_ui(name: &str) -> Result<Response, Problem> {
    // Its configuration is in `page.js`.
    let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok().flatten();
    let file = file.ok_or(Problem::new(Code::RouteNotFound))?;
    let mut response = sent(&file.content_type, file.bytes.into_owned().into());
    if file.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn sent(content_type: &str, body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}
