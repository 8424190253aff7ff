//! Scripts with variables: `{{ mac }}` and the like, replaced before a machine gets them.

use std::fmt;

use strum::{Display, EnumString, VariantNames};

use super::artifact::{ArtifactKind, PublicUrl};
use super::mac::MacAddr;
use super::name::ObjectName;

/// What a script may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, EnumString, VariantNames)]
pub enum Variable {
    /// The machine's MAC address with colons.
    #[strum(serialize = "mac")]
    Mac,
    /// The machine's MAC address with hyphens.
    #[strum(serialize = "mac.hyphenated")]
    MacHyphenated,
    /// The bridge's address, without a slash at its end.
    #[strum(serialize = "bridge")]
    Bridge,
    /// Namespace of the machine's BareMetalHost.
    #[strum(serialize = "host.namespace")]
    HostNamespace,
    /// Name of the machine's BareMetalHost.
    #[strum(serialize = "host.name")]
    HostName,
    /// Namespace of the environment that the machine would boot.
    #[strum(serialize = "environment.namespace")]
    EnvironmentNamespace,
    /// Name of the environment that the machine would boot.
    #[strum(serialize = "environment.name")]
    EnvironmentName,
    /// Address of the environment's kernel at the bridge.
    #[strum(serialize = "environment.kernel")]
    EnvironmentKernel,
    /// Address of the environment's initial RAM disk at the bridge.
    #[strum(serialize = "environment.initrd")]
    EnvironmentInitrd,
    /// Address of the environment's root file system at the bridge.
    #[strum(serialize = "environment.rootfs")]
    EnvironmentRootfs,
    /// Address of the environment's own script at the bridge.
    #[strum(serialize = "environment.script")]
    EnvironmentScript,
}

/// A script, split at its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// A place that cannot be understood, counted from 1 in lines and characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    line: usize,
    column: usize,
    message: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for TemplateError {}

/// What variables stand for. Every value is of a type that holds nothing iPXE reads as syntax: an address, a name, a checked URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values<'a> {
    /// The machine.
    pub mac: MacAddr,
    /// The bridge's address.
    pub bridge: &'a PublicUrl,
    /// The id of the boot, for the addresses of files.
    pub boot: Option<&'a str>,
    /// The machine's BareMetalHost.
    pub host: Option<&'a ObjectName>,
    /// The environment that it would boot.
    pub environment: Option<&'a ObjectName>,
}

impl Template {
    /// Splits a script. Fails at the first place that names no variable, or that does not end on its line.
    pub fn parse(script: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = script;
        while let Some(start) = rest.find("{{") {
            let (text, place) = rest.split_at(start);
            let error = |message: String| {
                let before = &script[..script.len() - place.len()];
                TemplateError {
                    line: before.matches('\n').count() + 1,
                    column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
                    message,
                }
            };
            let inside = place[2..].split_once("}}").filter(|(inside, _)| !inside.contains('\n'));
            let Some((inside, behind)) = inside else {
                return Err(error("{{ without }} on the same line".to_owned()));
            };
            let named = inside.trim();
            let variable = named.parse().map_err(|_| {
                let known = Variable::VARIANTS.join(", ");
                error(format!("{:?} is no variable, expected one of {known}", shortened(named)))
            })?;
            parts.push(Part::Text(text.into()));
            parts.push(Part::Variable(variable));
            rest = behind;
        }
        parts.push(Part::Text(rest.into()));
        Ok(Self(parts))
    }

    /// The script for a machine. Fails with the first variable that has no value for it.
    pub fn render(&self, values: &Values<'_>) -> Result<String, String> {
        self.0.iter().try_fold(String::new(), |mut script, part| {
            match part {
                Part::Text(text) => script.push_str(text),
                Part::Variable(variable) => script.push_str(&values.of(*variable)?),
            }
            Ok(script)
        })
    }

    /// The first variable that has no value for a machine, as an error.
    pub fn check(&self, host: bool, environment: bool) -> Result<(), String> {
        let missing = self.0.iter().find_map(|part| match part {
            Part::Variable(variable) if variable.needs_host() && !host => Some(no_host(*variable)),
            Part::Variable(variable) if variable.needs_environment() && !environment => Some(no_environment(*variable)),
            _ => None,
        });
        missing.map_or(Ok(()), Err)
    }
}

impl Variable {
    fn needs_host(self) -> bool {
        matches!(self, Self::HostNamespace | Self::HostName)
    }

    fn needs_environment(self) -> bool {
        self.to_string().starts_with("environment.")
    }
}

fn no_host(variable: Variable) -> String {
    format!("{{{{ {variable} }}}} has no value: no BareMetalHost has this MAC address")
}

fn no_environment(variable: Variable) -> String {
    format!("{{{{ {variable} }}}} has no value: nothing names an environment for this machine")
}

impl Values<'_> {
    fn of(&self, variable: Variable) -> Result<String, String> {
        let host = || self.host.ok_or_else(|| no_host(variable));
        let environment = || self.environment.ok_or_else(|| no_environment(variable));
        let artifact = |kind| Ok(self.bridge.artifact(kind, environment()?, self.boot));
        match variable {
            Variable::Mac => Ok(self.mac.to_string()),
            Variable::MacHyphenated => Ok(self.mac.hyphenated()),
            Variable::Bridge => Ok(self.bridge.to_string()),
            Variable::HostNamespace => Ok(host()?.namespace().to_owned()),
            Variable::HostName => Ok(host()?.name().to_owned()),
            Variable::EnvironmentNamespace => Ok(environment()?.namespace().to_owned()),
            Variable::EnvironmentName => Ok(environment()?.name().to_owned()),
            Variable::EnvironmentKernel => artifact(ArtifactKind::Kernel),
            Variable::EnvironmentInitrd => artifact(ArtifactKind::Initrd),
            Variable::EnvironmentRootfs => artifact(ArtifactKind::Rootfs),
            Variable::EnvironmentScript => artifact(ArtifactKind::IpxeScript),
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_nothing_else() {
        let bridge: PublicUrl = "http://boot.example.com:9876".parse().expect("valid");
        let name = ObjectName::new("lab", "discovery").expect("valid");
        let values = Values {
            mac: "52:54:00:cc:00:01".parse().expect("valid"),
            bridge: &bridge,
            boot: None,
            host: None,
            environment: Some(&name),
        };
        let render = |script: &str| Template::parse(script).expect("a template").render(&values);
        let script = "#!ipxe\r\nkernel {{environment.kernel}} m={{ mac }} ${net0/mac} } {{  mac.hyphenated }}\n";
        let expected = "#!ipxe\r\nkernel http://boot.example.com:9876/boot-artifacts/kernel/lab/discovery m=52:54:00:cc:00:01 ${net0/mac} } \
                        52-54-00-cc-00-01\n";
        assert_eq!(render(script), Ok(expected.to_owned()));
        assert_eq!(render(""), Ok(String::new()));
        let error = "{{ host.name }} has no value: no BareMetalHost has this MAC address";
        assert_eq!(render("{{ host.name }}"), Err(error.to_owned()));
        let checked = Template::parse("{{ host.name }}").expect("a template").check(false, true);
        assert_eq!(checked, Err(error.to_owned()));
    }

    #[test]
    fn what_is_no_variable_is_named_with_its_place() {
        for (script, expected) in [
            (
                "#!ipxe\necho tür {{ Mac }}",
                "line 2, column 10: \"Mac\" is no variable, expected one of mac, mac.hyphenated, bridge, ",
            ),
            ("{{ mac\n}}", "line 1, column 1: {{ without }} on the same line"),
            ("\n\n {{", "line 3, column 2: {{ without }}"),
            ("{{}}", "line 1, column 1: \"\" is no variable"),
        ] {
            let error = Template::parse(script).expect_err("no template").to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
