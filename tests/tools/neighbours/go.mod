// Whose definitions the tests apply our objects with: each file as its project publishes it, by the list in install.sh beside this folder.
module ipxe-bridge.io/tests/neighbours

go 1.26.3

require (
	github.com/argoproj/argo-cd/v3 v3.1.0
	github.com/fluxcd/kustomize-controller v1.9.6
	github.com/fluxcd/source-controller v1.7.0
	github.com/openshift/api v0.0.0-20260204104751-e09e5a4ebcd0
	github.com/operator-framework/operator-controller v1.11.0
	github.com/operator-framework/operator-lifecycle-manager v0.46.0
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
