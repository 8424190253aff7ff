// Asks the validators of operator-framework about a bundle, all that need no container engine, and fails if one has anything to say.
//
//	verify FOLDER KUBERNETES-VERSION
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/operator-framework/api/pkg/apis/scorecard/v1alpha3"
	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
	"github.com/operator-framework/operator-registry/pkg/lib/bundle"
	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"
)

func main() {
	folder, version := os.Args[1], os.Args[2]
	said := 0
	say := func(level string, what any) {
		said++
		fmt.Printf("%s: %v\n", level, what)
	}

	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	format := bundle.NewImageValidator(nil, logrus.NewEntry(quiet))
	for _, err := range []error{
		format.ValidateBundleFormat(folder),
		format.ValidateBundleContent(filepath.Join(folder, "manifests")),
	} {
		if err != nil {
			say("error", err)
		}
	}

	read, err := manifests.GetBundleFromDir(folder)
	if err != nil {
		say("error", err)
		os.Exit(1)
	}
	objects := append(read.ObjectsToValidate(), map[string]string{"k8s-version": version})
	for _, result := range validation.DefaultBundleValidators.WithValidators(
		validation.OperatorHubV2Validator,
		validation.StandardCapabilitiesValidator,
		validation.StandardCategoriesValidator,
		validation.AlphaDeprecatedAPIsValidator,
		validation.GoodPracticesValidator,
		validation.ObjectValidator,
	).Validate(objects...) {
		for _, err := range result.Errors {
			say("error", err.Error())
		}
		for _, warning := range result.Warnings {
			say("warning", warning.Error())
		}
	}

	// No cluster has this kind: what the scorecard reads it into is all there is to hold it against.
	var scorecard v1alpha3.Configuration
	text, err := os.ReadFile(filepath.Join(folder, "tests", "scorecard", "config.yaml"))
	if err == nil {
		err = yaml.UnmarshalStrict(text, &scorecard)
	}
	if err != nil {
		say("error", err)
	} else if kind := scorecard.GroupVersionKind(); kind != v1alpha3.GroupVersion.WithKind("Configuration") {
		say("error", fmt.Sprintf("the scorecard's file is a %v", kind))
	}
	if said > 0 {
		os.Exit(1)
	}
}
