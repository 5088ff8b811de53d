package config

import (
	"reflect"
	"slices"
	"strings"
)

// SecretVariables names the variables of the environment that the configuration takes secrets from, by its settings that end in
// "_env": they are for this process alone.
func (c *Config) SecretVariables() []string {
	var names []string
	collectVariables(reflect.ValueOf(c).Elem(), &names)
	slices.Sort(names)
	return slices.Compact(names)
}

func collectVariables(v reflect.Value, names *[]string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			collectVariables(v.Elem(), names)
		}
	case reflect.Slice:
		for i := range v.Len() {
			collectVariables(v.Index(i), names)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("hcl"), ",")
			field := v.Field(i)
			switch {
			case tag == "":
			case strings.HasSuffix(tag, "_env") && field.Kind() == reflect.String && field.String() != "":
				*names = append(*names, field.String())
			default:
				collectVariables(field, names)
			}
		}
	}
}
