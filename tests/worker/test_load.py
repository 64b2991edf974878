"""The report of load, held to the definition of its message."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from worker.load import report

# Of xds/data/orca/v3/orca_load_report.proto, as far as it is written.
_FIELDS = (("rps_fractional", 6), ("application_utilization", 9))


def test_a_report_is_the_message_it_should_be() -> None:
    kind = descriptor_pb2.FieldDescriptorProto
    fields = [
        kind(name=name, number=number, type=kind.TYPE_DOUBLE, label=kind.LABEL_OPTIONAL) for name, number in _FIELDS
    ]
    message = descriptor_pb2.DescriptorProto(name="OrcaLoadReport", field=fields)
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="t", syntax="proto3", message_type=[message])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    read = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.OrcaLoadReport")).FromString(report(4, 0.5))
    assert {field.name: value for field, value in read.ListFields()} == {
        "rps_fractional": 1.0,
        "application_utilization": 5.5,
    }
