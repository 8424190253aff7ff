//! What Argo CD makes of a bridge, by the shipped script in a real Lua interpreter.

use ipxe_bridge::operator::reason::Reason;
use mlua::{Lua, Table, Value as LuaValue};

use super::*;

/// Health and message.
fn health(bridge: &Value) -> (String, String) {
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
    lua.globals().set("obj", value(&lua, bridge)).unwrap();
    let script = include_str!("../../../config/argocd/ipxebridge-health.lua");
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
        let (status, message) = health(&bridge);
        assert_eq!((status.as_str(), message.as_str()), expected, "{bridge}");
    }
}
