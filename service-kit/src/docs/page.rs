//! The pages themselves, written from the JSON of the OpenAPI description.

use std::fmt::Write;

use serde_json::Value;

use crate::problem::Code;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
h2{margin-top:2.5rem;border-top:1px solid #ddd;padding-top:1rem}code,pre{font:14px/1.4 ui-monospace,monospace;background:#f5f5f2}\
pre{padding:.75rem;overflow-x:auto}code{padding:0 .2em}table{border-collapse:collapse;width:100%}\
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #eee}\
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}code,pre{background:#262626}a{color:#8ab4f8}\
h2,td,th{border-color:#333}}";

/// The page of a whole description.
pub(super) fn api(description: &Value) -> String {
    let mut out = String::new();
    let info = &description["info"];
    let _ = write!(
        out,
        "<h1>{} <small>{}</small></h1><p>{}</p><p>For programs: <a href=\"/openapi.json\">/openapi.json</a>. \
         Every refusal has a page: <a href=\"/problems\">/problems</a>.</p><h2>Endpoints</h2><table>",
        text(&info["title"]),
        text(&info["version"]),
        text(&info["description"])
    );
    for (path, method, operation) in operations(description) {
        let _ = write!(
            out,
            "<tr><td><a href=\"#{id}\"><code>{method} {path}</code></a></td><td>{summary}</td></tr>",
            id = anchor(method, path),
            method = method.to_uppercase(),
            path = escape(path),
            summary = text(&operation["summary"])
        );
    }
    out.push_str("</table>");
    for (path, method, operation) in operations(description) {
        endpoint(&mut out, path, method, operation);
    }
    let schemas = members(&description["components"]["schemas"]);
    if !schemas.is_empty() {
        out.push_str("<h2>Schemas</h2>");
    }
    for (name, schema) in schemas {
        let name = escape(name);
        let _ = write!(out, "<h3 id=\"schema-{name}\">{name}</h3><p>{}</p>", text(&schema["description"]));
        properties(&mut out, schema);
        example(&mut out, &schema["example"]);
    }
    document(&text(&info["title"]), &out)
}

/// The page of all problems.
pub(super) fn problems() -> String {
    let mut out = String::from(
        "<h1>Problems</h1><p>Every refusal is an <code>application/problem+json</code> document (RFC 9457); its \
         <code>type</code> leads to one of these pages.</p><table>",
    );
    for code in Code::all() {
        let _ = write!(
            out,
            "<tr><td>{}</td><td><a href=\"/problems/{name}\">{name}</a></td><td>{}</td></tr>",
            code.status().as_u16(),
            escape(code.title()),
            name = code.name()
        );
    }
    out.push_str("</table>");
    document("Problems", &out)
}

/// The page of one problem.
pub(super) fn problem(code: Code) -> String {
    let body = format!(
        "<h1>{}</h1><p>Status {}, code <code>{}</code></p><p>{}</p><p><a href=\"/problems\">All problems</a> · <a href=\"/docs\">The API</a></p>",
        escape(code.title()),
        code.status(),
        code.name(),
        escape(code.explanation())
    );
    document(code.title(), &body)
}

fn endpoint(out: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        out,
        "<h2 id=\"{}\"><code>{} {}</code></h2><p><strong>{}</strong></p><p>{}</p>",
        anchor(method, path),
        method.to_uppercase(),
        escape(path),
        text(&operation["summary"]),
        text(&operation["description"])
    );
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        out.push_str("<h3>Parameters</h3><table>");
        for parameter in parameters {
            let required = if parameter["required"] == true { ", required" } else { "" };
            let _ = write!(
                out,
                "<tr><td><code>{}</code></td><td>{}{required}</td><td>{}</td><td>{}</td></tr>",
                text(&parameter["name"]),
                text(&parameter["in"]),
                kind(&parameter["schema"]),
                text(&parameter["description"])
            );
        }
        out.push_str("</table>");
    }
    if let Some(body) = operation.get("requestBody") {
        let _ = write!(out, "<h3>Body</h3><p>{}</p>", text(&body["description"]));
        content(out, &body["content"]);
    }
    out.push_str("<h3>Answers</h3>");
    for (status, response) in members(&operation["responses"]) {
        let _ = write!(out, "<p><strong>{}</strong> {}</p>", escape(status), text(&response["description"]));
        for (name, header) in members(&response["headers"]) {
            let _ = write!(out, "<p>Header <code>{}</code>: {}</p>", escape(name), text(&header["description"]));
        }
        content(out, &response["content"]);
    }
}

fn content(out: &mut String, content: &Value) {
    for (media_type, body) in members(content) {
        let _ = write!(out, "<p><code>{}</code> {}</p>", escape(media_type), kind(&body["schema"]));
        if body["schema"]["properties"].is_object() {
            properties(out, &body["schema"]);
        }
        example(out, &body["example"]);
        for (name, given) in members(&body["examples"]) {
            let _ = write!(out, "<p>{}</p>", escape(name));
            example(out, &given["value"]);
        }
    }
}

fn properties(out: &mut String, schema: &Value) {
    for part in ["allOf", "oneOf", "anyOf"] {
        for inner in schema[part].as_array().map(Vec::as_slice).unwrap_or_default() {
            if inner["properties"].is_object() {
                properties(out, inner);
            } else {
                let _ = write!(out, "<p>{part}: {}</p>", kind(inner));
            }
        }
    }
    let listed = members(&schema["properties"]);
    if listed.is_empty() {
        if schema["type"] != "object" {
            let _ = write!(out, "<p>{}</p>", kind(schema));
        }
        return;
    }
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    out.push_str("<table>");
    for (name, property) in listed {
        let mark = if required.iter().any(|required| required == name) { ", required" } else { "" };
        let _ = write!(
            out,
            "<tr><td><code>{}</code></td><td>{}{mark}</td><td>{}</td></tr>",
            escape(name),
            kind(property),
            text(&property["description"])
        );
    }
    out.push_str("</table>");
}

fn example(out: &mut String, example: &Value) {
    match example {
        Value::Null => {}
        // Examples that are no JSON, such as lines of a batch, come as text.
        Value::String(lines) => {
            let _ = write!(out, "<pre>{}</pre>", escape(lines));
        }
        json => {
            let _ = write!(out, "<pre>{}</pre>", escape(&format!("{json:#}")));
        }
    }
}

/// A schema in a few words, with a link where it has a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    if schema["items"].is_object() {
        return format!("list of {}", kind(&schema["items"]));
    }
    for part in ["oneOf", "anyOf", "allOf"] {
        if let Some(parts) = schema[part].as_array() {
            return parts.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    let mut words = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect::<Vec<_>>().join(" or "),
        named => text(named),
    };
    if let Some(format) = schema["format"].as_str() {
        let _ = write!(words, " ({})", escape(format));
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("<code>{}</code>", text(value))).collect();
        let _ = write!(words, ": {}", values.join(", "));
    }
    for (bound, word) in
        [("maxLength", "at most"), ("maximum", "at most"), ("minimum", "at least"), ("default", "default")]
    {
        if !schema[bound].is_null() {
            let _ = write!(words, ", {word} {}", text(&schema[bound]));
        }
    }
    words
}

fn operations(description: &Value) -> Vec<(&str, &'static str, &Value)> {
    let of_path = |(path, item)| {
        METHODS.iter().filter_map(move |method| {
            let (path, item): (&str, &Value) = (path, item);
            item.get(*method).map(|operation| (path, *method, operation))
        })
    };
    members(&description["paths"]).into_iter().flat_map(of_path).collect()
}

fn members(value: &Value) -> Vec<(&str, &Value)> {
    value
        .as_object()
        .map(|object| object.iter().map(|(name, value)| (name.as_str(), value)).collect())
        .unwrap_or_default()
}

fn anchor(method: &str, path: &str) -> String {
    let path: String = path.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    format!("{method}{path}")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        other => escape(&other.to_string()),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>{body}</body></html>"
    )
}
