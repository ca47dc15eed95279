package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/config/crd"
	"github.com/fingerpost-dns/fingerpost/controllers"
)

const (
	// kindsPoll is how often kinds that are waited for are looked at.
	kindsPoll = 250 * time.Millisecond
	// kindsPatience is how long a manager that starts waits for kinds that may be installed at the same time.
	kindsPatience = 10 * time.Second
)

// crdsCommand is `manager crds`.
func crdsCommand() *cobra.Command {
	crds := &cobra.Command{
		Use:   "crds",
		Short: "The kinds that this manager needs",
		Args:  cobra.NoArgs,
	}
	crds.AddCommand(
		&cobra.Command{
			Use:     "print",
			Short:   "Write the CustomResourceDefinitions of this version to stdout",
			Example: "  manager crds print | kubectl apply --server-side --force-conflicts -f -",
			Args:    cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				files, err := crd.Files()
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(bytes.Join(files, nil))
				return err
			},
		},
	)
	return crds
}

// awaitKinds calls check until it returns nil, for as long as patience at most. Its error is then the last one of check.
func awaitKinds(ctx context.Context, patience time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %s", patience))
	defer cancel()
	var last error
	err := wait.PollUntilContextCancel(ctx, kindsPoll, true, func(ctx context.Context) (bool, error) {
		err := check(ctx)
		if err == nil || ctx.Err() == nil { // what ends with ctx says less than what was before
			last = err
		}
		return err == nil, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), last)
	}
	return err
}

// checkKinds compares the kinds of the cluster with those of this manager.
func checkKinds(ctx context.Context, config *rest.Config) error {
	built, err := crd.Definitions()
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return err
	}
	live, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("reaching the API server: %w", err)
	}
	return controllers.CheckKinds(ctx, live, built)
}

// checkServed asks as others do whether the API server has our kinds, and schemas of them: that comes a moment after the
// definitions.
func checkServed(config *rest.Config) error {
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	_, resources, err := api.ServerGroupsAndResources()
	var partial *discovery.ErrGroupDiscoveryFailed // of others' groups
	if err != nil && !errors.As(err, &partial) {
		return fmt.Errorf("asking for the API server's kinds: %w", err)
	}
	served := map[string]bool{}
	for _, list := range resources {
		if list.GroupVersion == v1alpha1.SchemeGroupVersion.String() {
			for _, r := range list.APIResources {
				served[r.Name+"."+v1alpha1.GroupName] = true
			}
		}
	}
	built, err := crd.Definitions()
	if err != nil {
		return err
	}
	for _, definition := range built {
		if !served[definition.Name] {
			return fmt.Errorf("%s is not served yet", definition.Name)
		}
	}
	schemas, err := api.OpenAPIV3().Paths()
	if err != nil {
		return fmt.Errorf("asking for the API server's schemas: %w", err)
	}
	if _, ok := schemas["apis/"+v1alpha1.SchemeGroupVersion.String()]; !ok {
		return fmt.Errorf("schemas of %s are not served yet", v1alpha1.SchemeGroupVersion)
	}
	return nil
}
