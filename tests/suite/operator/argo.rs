//! What Argo CD makes of bridges and overrides, by the shipped scripts in a real Lua interpreter.

use ipxe_bridge::boot::standing;
use ipxe_bridge::operator::reason::Reason;
use mlua::{Lua, Table, Value as LuaValue};
use strum::VariantArray as _;

use super::*;

const BRIDGE: &str = include_str!("../../../config/argocd/ipxebridge-health.lua");
const OVERRIDE: &str = include_str!("../../../config/argocd/ipxehostoverride-health.lua");

/// Health and message by a script.
fn health(script: &str, object: &Value) -> (String, String) {
    fn value(lua: &Lua, json: &Value) -> LuaValue {
        let text = |text: &str| LuaValue::String(lua.create_string(text).unwrap());
        match json {
            Value::Null => LuaValue::Nil,
            Value::Bool(bool) => LuaValue::Boolean(*bool),
            Value::Number(number) => LuaValue::Number(number.as_f64().unwrap()),
            Value::String(string) => text(string),
            Value::Array(items) => {
                let items = items.iter().map(|item| value(lua, item));
                LuaValue::Table(lua.create_sequence_from(items).unwrap())
            }
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, field)| (text(name), value(lua, field)));
                LuaValue::Table(lua.create_table_from(fields).unwrap())
            }
        }
    }
    let lua = Lua::new();
    lua.globals().set("obj", value(&lua, object)).unwrap();
    let answer: Table = lua.load(script).eval().unwrap();
    (answer.get("status").unwrap(), answer.get("message").unwrap())
}

#[test]
fn the_health_of_a_bridge_follows_its_conditions() {
    let bridge = |observed: i64, conditions: &[(&str, bool, Reason)]| {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(type_, is_true, reason)| {
                let status = if *is_true { "True" } else { "False" };
                json!({"type": type_, "status": status, "reason": reason.to_string(), "message": "words"})
            })
            .collect();
        json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}})
    };
    let state = |ready, reason, progressing, degraded| {
        bridge(
            2,
            &[
                ("Ready", ready, reason),
                ("Progressing", progressing, reason),
                ("Degraded", degraded, reason),
            ],
        )
    };
    for (bridge, expected) in [
        (
            json!({"metadata": {"generation": 1}}),
            ("Progressing", "Waiting for the operator"),
        ),
        (
            bridge(1, &[("Ready", true, Reason::AsExpected)]),
            ("Progressing", "Waiting for the operator"),
        ),
        (bridge(2, &[]), ("Progressing", "Waiting for the operator")),
        (
            state(true, Reason::AsExpected, false, false),
            ("Healthy", "AsExpected: words"),
        ),
        (
            state(false, Reason::RollingOut, true, false),
            ("Progressing", "RollingOut: words"),
        ),
        (
            state(false, Reason::PodsFailing, true, true),
            ("Degraded", "PodsFailing: words"),
        ),
        (
            state(false, Reason::UriMissing, false, false),
            ("Suspended", "UriMissing: words"),
        ),
    ] {
        let (status, message) = health(BRIDGE, &bridge);
        assert_eq!((status.as_str(), message.as_str()), expected, "{bridge}");
    }
}

#[test]
fn the_health_of_an_override_tells_mistakes_from_what_was_asked_for() {
    use standing::Reason;
    let with = |observed: i64, ready: Reason, conflicted: Reason| {
        let condition = |type_: &str, holds: bool, reason: Reason| {
            let status = if holds { "True" } else { "False" };
            json!({"type": type_, "status": status, "reason": reason.to_string(), "message": "words"})
        };
        let conditions = [
            condition("Ready", ready == Reason::Serving, ready),
            condition("Conflicted", conflicted != Reason::NoConflict, conflicted),
        ];
        json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}})
    };
    let waiting = ("Progressing".to_owned(), "Waiting for a bridge".to_owned());
    assert_eq!(health(OVERRIDE, &json!({"metadata": {"generation": 1}})), waiting);
    assert_eq!(health(OVERRIDE, &with(1, Reason::Serving, Reason::NoConflict)), waiting);
    for conflict in [Reason::EqualPriority, Reason::OtherNamespace] {
        let (status, message) = health(OVERRIDE, &with(2, Reason::Serving, conflict));
        assert_eq!((status.as_str(), message), ("Degraded", format!("{conflict}: words")));
        let (status, _) = health(OVERRIDE, &with(2, Reason::Expired, conflict));
        assert_eq!(status, "Healthy", "what ended is in nobody's way");
    }
    for reason in Reason::VARIANTS {
        // Whoever adds a reason says here what it means.
        let expected = match reason {
            Reason::Serving | Reason::Expired | Reason::Exhausted | Reason::Overruled => "Healthy",
            Reason::NoMachine => "Suspended",
            Reason::Invalid | Reason::OtherNamespace | Reason::EqualPriority => "Degraded",
            Reason::ScriptMissing | Reason::ScriptInvalid | Reason::EnvironmentMissing => "Degraded",
            Reason::Accepted | Reason::NoConflict | Reason::ScriptMistakes | Reason::NoMistakes => continue,
        };
        let (status, message) = health(OVERRIDE, &with(2, *reason, Reason::NoConflict));
        assert_eq!((status.as_str(), message), (expected, format!("{reason}: words")));
    }
}
