//! The files of the page: its style, its scripts and its icon, as they are in the repository.

use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// A file under the name of its content may be kept: another content has another name.
const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// How many bytes of a content's hash its name has.
const NAME_BYTES: usize = 9;

/// A file of the page.
#[derive(Debug)]
pub struct Asset {
    pub path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

pub static STYLE: Asset =
    Asset { path: "/assets/page.css", media_type: "text/css; charset=utf-8", text: include_str!("assets/page.css") };
pub static PAGE: Asset = script("/assets/page.js", include_str!("assets/page.js"));
pub static ANSI: Asset = script("/assets/ansi.js", include_str!("assets/ansi.js"));
pub static LOG: Asset = script("/assets/log.js", include_str!("assets/log.js"));
pub static ICON: Asset =
    Asset { path: "/assets/icon.svg", media_type: "image/svg+xml", text: include_str!("assets/icon.svg") };

/// All of them.
pub static ALL: [&Asset; 5] = [&STYLE, &PAGE, &ANSI, &LOG, &ICON];

const fn script(path: &'static str, text: &'static str) -> Asset {
    Asset { path, media_type: "text/javascript; charset=utf-8", text }
}

impl Asset {
    /// Its address, with its content's name.
    pub fn address(&self) -> String {
        format!("{}?{}", self.path, self.name())
    }

    fn name(&self) -> &'static str {
        static NAMES: LazyLock<[String; 5]> = LazyLock::new(|| ALL.map(|asset| name(asset.text)));
        let at = ALL.iter().position(|asset| asset.path == self.path);
        at.and_then(|at| NAMES.get(at)).map_or("", String::as_str)
    }
}

fn name(text: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(text).into();
    URL_SAFE_NO_PAD.encode(digest.iter().copied().take(NAME_BYTES).collect::<Vec<u8>>())
}

/// Serves a file; under another name than its content's it may be another version's, and isn't kept.
pub fn serve(request: &HttpRequest, asset: &'static Asset) -> HttpResponse {
    let mut response = HttpResponse::Ok().content_type(asset.media_type).body(asset.text);
    if request.query_string() == asset.name() {
        response.headers_mut().insert(CACHE_CONTROL, KEEP);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_contents_name_and_no_other_files() {
        let mut names: Vec<&str> = ALL.iter().map(|asset| asset.name()).collect();
        assert!(names.iter().all(|name| name.len() == 12));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert_ne!(name("a"), name("b"));
        assert_eq!(STYLE.address(), format!("/assets/page.css?{}", name(STYLE.text)));
    }
}
