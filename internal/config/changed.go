package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// reloadable are the settings that a running node takes over.
var reloadable = []string{"log_level"}

// Changed lists the settings in which next differs from c and which a running node does not take over: they wait for its next start.
// Secrets are among them by their names alone.
func (c *Config) Changed(next *Config) []string {
	var paths []string
	changed(reflect.ValueOf(c).Elem(), reflect.ValueOf(next).Elem(), "", &paths)
	return slices.DeleteFunc(paths, func(path string) bool { return slices.Contains(reloadable, path) })
}

func changed(a, b reflect.Value, path string, paths *[]string) {
	for i := range a.NumField() {
		tag, kind, _ := strings.Cut(a.Type().Field(i).Tag.Get("hcl"), ",")
		if tag == "" {
			continue
		}
		here := join(path, tag)
		if kind == "variant" {
			here = path // the type is among the block's own settings
		}
		x, y := a.Field(i), b.Field(i)
		switch {
		case reflect.DeepEqual(x.Interface(), y.Interface()):
		case x.Kind() == reflect.Struct && kind != "":
			changed(x, y, here, paths)
		case x.Kind() == reflect.Slice && kind == "block" && x.Len() == y.Len():
			for j := range x.Len() {
				changed(x.Index(j), y.Index(j), fmt.Sprintf("%s[%d]", here, j), paths)
			}
		default:
			*paths = append(*paths, here)
		}
	}
}
