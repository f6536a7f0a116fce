//! A mapping as a file that people read and correct.

use super::mapping::{Mapping, Rule, Unmapped};
use super::template::Template;

pub(super) fn to_toml(mapping: &Mapping) -> String {
    let mut text = String::new();
    if mapping.unmapped == Unmapped::Attributes {
        text += "unmapped = \"attributes\"\n";
    }
    if let Some(updated_at) = &mapping.updated_at {
        text += &format!("updated_at = {{ column = {}", quoted(&updated_at.column));
        if let Some(conversion) = &updated_at.conversion {
            text += &format!(", as = {}", quoted(&conversion.name()));
        }
        text += if updated_at.lenient { ", lenient = true }\n" } else { " }\n" };
    }
    text += "\n[columns]\n";
    for (name, rules) in &mapping.columns {
        let rules: Vec<String> = rules.iter().map(rule).collect();
        let rules = match &rules[..] {
            [only] => only.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        text += &format!("{} = {rules}\n", quoted(name));
    }
    if !mapping.constants.is_empty() {
        text += "\n[constants]\n";
        for (target, value) in &mapping.constants {
            text += &format!("{} = {}\n", quoted(&target.to_string()), quoted(value));
        }
    }
    let ids = &mapping.ids;
    let ids: [(&str, &Option<Template>); 4] = [
        ("company", &ids.company),
        ("company_source", &ids.company_source),
        ("prospect", &ids.prospect),
        ("prospect_source", &ids.prospect_source),
    ];
    if ids.iter().any(|(_, template)| template.is_some()) {
        text += "\n[ids]\n";
        for (name, template) in ids {
            if let Some(template) = template {
                text += &format!("{name} = {}\n", quoted(template.as_str()));
            }
        }
    }
    text.trim_start().to_owned()
}

fn rule(rule: &Rule) -> String {
    let to = quoted(&rule.target.to_string());
    if rule.conversion.is_none() && rule.each.is_none() && !rule.lenient {
        return to;
    }
    let mut text = format!("{{ to = {to}");
    if let Some(conversion) = &rule.conversion {
        text += &format!(", as = {}", quoted(&conversion.name()));
    }
    if let Some(each) = &rule.each {
        text += &format!(", each = {}", quoted(each.name()));
    }
    text + if rule.lenient { ", lenient = true }" } else { " }" }
}

/// A text as a JSON string, which is one of TOML too.
fn quoted(text: &str) -> String {
    // DEL alone may stand in JSON as it is and not in TOML.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
