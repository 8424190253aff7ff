//! Last touches to generated schemas: what Kubernetes' own types leave out when they are part of a CustomResourceDefinition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// A page of the reference manual otherwise, repeated at each of its uses.
const QUANTITY: &str = "An amount with its unit: `500m`, `2`, `512Mi`, `1Gi`.";

/// Every list says how it is merged, no description is longer than a person reads.
pub fn finish(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            walk(schema);
        }
    }
    definition
}

fn walk(schema: &mut JSONSchemaProps) {
    if schema.type_.as_deref() == Some("array") {
        schema.x_kubernetes_list_type.get_or_insert_with(|| "atomic".to_owned());
    }
    // Kubernetes knows no unsigned numbers and warns of them; their bounds are said by minimum and maximum.
    schema.format.take_if(|format| format.starts_with("uint"));
    if schema.x_kubernetes_int_or_string == Some(true)
        && schema
            .description
            .as_ref()
            .is_some_and(|text| text.starts_with("Quantity is"))
    {
        schema.description = Some(QUANTITY.to_owned());
    }
    schema
        .properties
        .iter_mut()
        .flatten()
        .for_each(|(_, property)| walk(property));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        walk(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        walk(values);
    }
}
