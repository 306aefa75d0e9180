// Every C++ symbol of Ceph that cls_siphon.cc uses, made weak.
//
// An OSD resolves all symbols of a class when it loads it. On another Ceph build one of these may
// be missing: as a weak symbol it is then null, the library loads, the build check fails, none of
// them is called and the companion is started. As a strong one it would keep the library out, and
// the classes after it in the OSD's list with it. cls_log and cls_register, being C, stay strong.
//
// Included by cls_siphon.cc alone. When a symbol is missing here, the build fails
// (check_symbols.cmake).
#pragma once

asm(".weak _Z12cls_cxx_statPvPmPl");
asm(".weak _Z13cls_cxx_read2PviiPN4ceph6buffer7v15_2_04listEj");
asm(".weak _Z14cls_cxx_removePv");
asm(".weak _Z14cls_cxx_write2PviiPN4ceph6buffer7v15_2_04listEj");
asm(".weak _Z16cls_cxx_getxattrPvPKcPN4ceph6buffer7v15_2_04listE");
asm(".weak _Z16cls_cxx_setxattrPvPKcPN4ceph6buffer7v15_2_04listE");
asm(".weak _Z17cls_cxx_getxattrsPvPSt3mapINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEN4cep"
    "h6buffer7v15_2_04listESt4lessIS6_ESaISt4pairIKS6_SA_EEE");
asm(".weak _Z18cls_cxx_write_fullPvPN4ceph6buffer7v15_2_04listE");
asm(".weak _Z20cls_cxx_map_get_keysPvRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEmPSt3set"
    "IS5_St4lessIS5_ESaIS5_EEPb");
asm(".weak _Z23cls_cxx_map_read_headerPvPN4ceph6buffer7v15_2_04listE");
asm(".weak _Z23cls_register_cxx_methodPvPKciPFiS_PN4ceph6buffer7v15_2_04listES6_EPS_");
asm(".weak _ZN4ceph6buffer7v15_2_019create_page_alignedEj");
asm(".weak _ZN4ceph6buffer7v15_2_03ptr5c_strEv");
asm(".weak _ZN4ceph6buffer7v15_2_03ptr7releaseEv");
asm(".weak _ZN4ceph6buffer7v15_2_03ptrC1ENS_19unique_leakable_ptrINS1_3rawEEE");
asm(".weak _ZN4ceph6buffer7v15_2_04list13iterator_implILb0EE4copyEjPc");
asm(".weak _ZN4ceph6buffer7v15_2_04list13iterator_implILb1EE4copyEjPc");
asm(".weak _ZN4ceph6buffer7v15_2_04list13iterator_implILb1EEC1EPKS2_j");
asm(".weak _ZN4ceph6buffer7v15_2_04list17always_empty_bptrE");
asm(".weak _ZN4ceph6buffer7v15_2_04list6appendEONS1_3ptrE");
asm(".weak _ZN4ceph6buffer7v15_2_04list6appendEPKcj");
asm(".weak _ZN4ceph6buffer7v15_2_04list8iteratorC1EPS2_j");
asm(".weak _ZN4ceph6buffer7v15_2_08ptr_node24dispose_if_hypercombinedEPS2_");
asm(".weak _ZNK4ceph6buffer7v15_2_03ptr5c_strEv");
asm(".weak _ZNK4ceph6buffer7v15_2_04list6crc32cEj");
