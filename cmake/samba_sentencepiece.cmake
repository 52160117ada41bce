# Defines samba::sentencepiece (samba::samba and libsentencepiece) if the library and its header are found.
# Used by this build and, installed, by find_package(samba COMPONENTS sentencepiece).
if(NOT TARGET samba::sentencepiece)
  find_path(SAMBA_SENTENCEPIECE_INCLUDE sentencepiece_processor.h)
  find_library(SAMBA_SENTENCEPIECE_LIBRARY sentencepiece)
  mark_as_advanced(SAMBA_SENTENCEPIECE_INCLUDE SAMBA_SENTENCEPIECE_LIBRARY)
  if(SAMBA_SENTENCEPIECE_INCLUDE AND SAMBA_SENTENCEPIECE_LIBRARY)
    add_library(samba::sentencepiece INTERFACE IMPORTED GLOBAL)
    set_target_properties(samba::sentencepiece PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${SAMBA_SENTENCEPIECE_INCLUDE}"
      INTERFACE_LINK_LIBRARIES "samba::samba;${SAMBA_SENTENCEPIECE_LIBRARY}")
  endif()
endif()
