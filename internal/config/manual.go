package config

import (
	"embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
)

//go:embed *.go
var ownSource embed.FS

// Entry is one setting in the manual.
type Entry struct {
	Path string // "storage \"raft\" / retry_join / leader_api_addr"
	Doc  string // what it is, its unit and its default
}

// Manual lists every setting with its field's comment, in the order of the structs.
func Manual() ([]Entry, error) {
	structs, err := structsOf(ownSource)
	if err != nil {
		return nil, fmt.Errorf("reading the manual: %w", err)
	}
	var entries []Entry
	var walk func(name, path string)
	walk = func(name, path string) {
		for _, field := range structs[name].Fields.List {
			if field.Tag == nil {
				continue
			}
			tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`")).Get("hcl")
			setting, kind, _ := strings.Cut(tag, ",")
			here := setting
			switch {
			case kind == "label":
				continue
			case kind == "variant" && !offered(path, setting):
				continue
			case kind == "variant":
				here = fmt.Sprintf("%s %q", path, setting)
			case path != "":
				here = path + " / " + setting
			}
			doc := strings.Join(strings.Fields(field.Doc.Text()), " ")
			if rest, ok := strings.CutPrefix(doc, field.Names[0].Name+" "); ok { // the user's name for it, not Go's
				doc = setting + " " + rest
				if many, ok := strings.CutPrefix(rest, "are "); ok {
					doc = strings.ToUpper(many[:1]) + many[1:] // the name stands before it, mostly in the singular
				}
			}
			entries = append(entries, Entry{Path: here, Doc: doc})
			if kind == "block" || kind == "variant" {
				walk(elementName(field.Type), here)
			}
		}
	}
	walk("Config", "")
	return entries, nil
}

// offered reports whether a block can be of this type. One struct takes what storage and ha_storage can be, so that a mistake gets a
// better answer than that the key is unknown; the manual leaves out what is always refused.
func offered(block, kind string) bool {
	switch block {
	case "storage", "ha_storage":
		return slices.Contains(storeNames(block == "ha_storage"), kind)
	}
	return true
}

func elementName(t ast.Expr) string {
	if list, ok := t.(*ast.ArrayType); ok {
		t = list.Elt
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// structsOf finds the structs in the package's own source.
func structsOf(sources embed.FS) (map[string]*ast.StructType, error) {
	names, err := sources.ReadDir(".")
	if err != nil {
		return nil, err
	}
	structs := map[string]*ast.StructType{}
	for _, name := range names {
		if strings.HasSuffix(name.Name(), "_test.go") {
			continue
		}
		source, err := sources.ReadFile(name.Name())
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name.Name(), source, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					structs[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	return structs, nil
}
