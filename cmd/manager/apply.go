package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// applyOwner owns the fields that `manager apply` writes.
const applyOwner = "fingerpost-chart"

// refusedError is about objects that the API server will not take however often it is asked.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// applyCommand is `manager apply`.
func applyCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Apply objects of the project's kinds, as soon as the API server serves these",
		Long: `Applies the objects in FILE, YAML documents of the kinds of ` + v1alpha1.GroupName + `, by server-side apply: what the chart does
with datacenters and the root zone of its values. Objects that are not in FILE stay as they are. All objects are tried;
if the API server refuses one for what it says, the exit code is 3.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			objects, err := parseObjects(text)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			config, err := ctrl.GetConfig()
			if err != nil {
				return fmt.Errorf("finding the cluster: %w", err)
			}
			if err := awaitKinds(cmd.Context(), timeout, func(context.Context) error { return checkServed(config) }); err != nil {
				return err
			}
			return applyAll(cmd.Context(), config, objects, cmd.OutOrStdout())
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait for the kinds")
	return cmd
}

// parseObjects reads YAML documents, each an object of our kinds. Empty ones are left out.
func parseObjects(text []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(doc, &o.Object); err != nil {
			return nil, fmt.Errorf("document %d: %w", len(objects)+1, err)
		}
		if len(o.Object) == 0 {
			continue
		}
		if got := o.GroupVersionKind().GroupVersion(); got != v1alpha1.SchemeGroupVersion || o.GetName() == "" {
			return nil, fmt.Errorf("document %d: %s %q is no object of %s with a name", len(objects)+1, o.GroupVersionKind(), o.GetName(), v1alpha1.SchemeGroupVersion)
		}
		objects = append(objects, o)
	}
}

// applyAll applies the objects and writes a line for each to out. If only some were applied, the error is about the others.
func applyAll(ctx context.Context, config *rest.Config, objects []*unstructured.Unstructured, out io.Writer) error {
	c, err := client.New(config, client.Options{FieldOwner: applyOwner})
	if err != nil {
		return fmt.Errorf("reaching the API server: %w", err)
	}
	var errs []error
	refused := false
	for _, o := range objects {
		name := o.GetKind() + " " + client.ObjectKeyFromObject(o).String()
		err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.ForceOwnership)
		if err != nil {
			refused = refused || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
			errs = append(errs, fmt.Errorf("applying %s: %w", name, err))
			continue
		}
		if _, err := fmt.Fprintln(out, name, "applied"); err != nil {
			return err
		}
	}
	if err := errors.Join(errs...); err != nil && refused {
		return refusedError{err}
	}
	return errors.Join(errs...)
}
