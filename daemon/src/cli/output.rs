//! The forms of `-o`: an object as JSON, YAML, a name, or what a path leads to.

use crate::jsonpath::Template;
use serde_json::Value;
use std::io::Write;
use std::str::FromStr;

#[derive(Clone, Debug)]
pub enum OutputFormat {
    Wide,
    Json,
    Yaml,
    Name,
    JsonPath(Template),
}

impl FromStr for OutputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            _ => match text.strip_prefix("jsonpath=") {
                Some(template) => {
                    Template::parse(template).map(Self::JsonPath).map_err(|error| format!("{error:#}"))
                }
                None => Err("write wide, json, yaml, name or jsonpath={.path}".to_owned()),
            },
        }
    }
}

/// Writes one of many objects that come one after the other.
pub fn write_watched(
    out: &mut impl Write,
    item: &Value,
    format: &OutputFormat,
    singular: &str,
) -> anyhow::Result<()> {
    match format {
        OutputFormat::Name => {
            writeln!(out, "{singular}/{}", item["metadata"]["name"].as_str().unwrap_or_default())?;
        }
        OutputFormat::Yaml => {
            writeln!(out, "---")?;
            write_object(out, item, format)?;
        }
        _ => write_object(out, item, format)?,
    }
    Ok(())
}

/// Writes one object whole, the way `-o` asks for.
pub fn write_object(out: &mut impl Write, object: &Value, format: &OutputFormat) -> anyhow::Result<()> {
    match format {
        OutputFormat::Yaml => serde_yaml_ng::to_writer(&mut *out, &without_managers(object))?,
        OutputFormat::JsonPath(template) => write!(out, "{}", template.fill(object))?,
        OutputFormat::Json | OutputFormat::Name | OutputFormat::Wide => {
            let pretty = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut serializer = serde_json::Serializer::with_formatter(&mut *out, pretty);
            serde::Serialize::serialize(&without_managers(object), &mut serializer)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

/// The object, or the list, without the notes of who manages which field: they are longer than the object.
fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    let drop = |object: &mut Value| {
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("managedFields");
        }
    };
    drop(&mut object);
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(drop);
    object
}

/// The items of a list, each with the kind and version that lists leave out.
pub fn take_items(list: &mut Value) -> Vec<Value> {
    let kind =
        list["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).unwrap_or_default().to_owned();
    let version = list["apiVersion"].clone();
    let Value::Array(items) = list["items"].take() else { return Vec::new() };
    let complete = |mut item: Value| {
        if let Some(fields) = item.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| version.clone());
            fields.entry("kind").or_insert_with(|| Value::String(kind.clone()));
        }
        item
    };
    items.into_iter().map(complete).collect()
}
