//! What the pages load beside themselves: part of the program, so that they need nobody else.

use http::header;
use poem::{Response, Route, handler};

/// They change with the program only.
const KEPT: &str = "max-age=600";

/// Adds the style, the script and the icon of the pages.
pub fn assets(route: Route) -> Route {
    route
        .at("/page.css", poem::get(style))
        .at("/page.js", poem::get(script))
        .at("/icon.svg", poem::get(icon))
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    Response::builder()
        .content_type(content_type)
        .header(header::CACHE_CONTROL, KEPT)
        .body(text)
}

#[handler]
fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("page.css"))
}

#[handler]
fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("page.js"))
}

#[handler]
fn icon() -> Response {
    asset("image/svg+xml", include_str!("../../../../config/manifests/icon.svg"))
}
